"""Log-probability and entropy of chosen tokens from hidden states, without full logits.

The vocabulary is processed in tiles: forward keeps a running maximum and sums (online softmax), backward
recomputes each tile. At most one tile of logits exists at a time; autograd keeps the inputs and two
vectors. Tiles split the vocabulary rather than the tokens, so each row of the weight's gradient is written
once per micro-batch instead of once per chunk.

A head may have a bias, multiply its logits by a constant (Cohere, Granite, Falcon-H1) and cap them softly
(Gemma 2): all of it happens inside the tile, in both directions.

Shapes: N tokens, D hidden, V vocabulary, v the tile's part of it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitRule:
    """What a model does to its logits after the output head: times `scale`, then cap * tanh(logits / cap)."""

    scale: float = 1.0
    cap: float | None = None

    def apply(self, logits: Tensor) -> Tensor:
        """The model's logits from the output head's; a new tensor unless the rule does nothing."""
        logits = logits if self.scale == 1.0 else logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


PLAIN_LOGITS = LogitRule()


def token_logprobs_and_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    rule: LogitRule = PLAIN_LOGITS,
    temperature: float = 1.0,
    tile_mb: int = 16,
) -> tuple[Tensor, Tensor]:
    """log p(targets) and entropy of softmax(rule(hidden @ weight.T + bias) / temperature), in nats.

    Both, of N, are differentiable in `hidden_ND`, `weight_VD` and `bias_V`. Under autocast the products run
    in its dtype, the rest in float32 (float64 inputs stay float64). `tile_mb` is the size of a tile.
    """
    device_type = hidden_ND.device.type
    dtype = hidden_ND.dtype
    if torch.is_autocast_enabled(device_type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device_type)
    tile = max(256, tile_mb * 2**20 // (4 * max(hidden_ND.shape[0], 1)))
    with torch.autocast(device_type, enabled=False):
        options = _Options(rule=rule, temperature=temperature, tile=tile, dtype=dtype)
        return _TiledLogprobs.apply(hidden_ND, weight_VD, bias_V, targets_N, options)  # type: ignore[no-any-return, no-untyped-call]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    rule: LogitRule
    temperature: float
    tile: int
    dtype: torch.dtype

    def logits(self, hidden: Tensor, weight_vD: Tensor, bias_v: Tensor | None, wide: torch.dtype) -> Tensor:
        """logits_Nv at temperature 1, in a tensor of their own."""
        logits_Nv = (hidden @ weight_vD.to(hidden.dtype).T).to(wide)
        if bias_v is not None:
            logits_Nv += bias_v.to(wide)
        return self.rule.apply(logits_Nv)


class _TiledLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        options: _Options,
    ) -> tuple[Tensor, Tensor]:
        tile = options.tile
        hidden = hidden_ND.to(options.dtype)
        wide = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        N = hidden.shape[0]
        peak_N1 = hidden.new_full((N, 1), -torch.inf, dtype=wide)
        mass_N1 = hidden.new_zeros((N, 1), dtype=wide)  # sum of exp(l - peak_N1)
        moment_N1 = hidden.new_zeros((N, 1), dtype=wide)  # sum of exp(l - peak_N1) * (l - peak_N1)
        chosen_N1 = hidden.new_zeros((N, 1), dtype=wide)
        for start in range(0, weight_VD.shape[0], tile):
            bias_v = None if bias_V is None else bias_V[start : start + tile]
            logits_Nv = options.logits(hidden, weight_VD[start : start + tile], bias_v, wide)
            if options.temperature != 1.0:
                logits_Nv /= options.temperature
            rows, columns = _in_tile(targets_N, start, logits_Nv.shape[1])
            chosen_N1[rows, 0] = logits_Nv[rows, columns]
            new_peak_N1 = torch.maximum(peak_N1, logits_Nv.amax(-1, keepdim=True))
            shift_N1 = torch.where(mass_N1 > 0, peak_N1 - new_peak_N1, 0.0)
            scale_N1 = shift_N1.exp() * (mass_N1 > 0)
            logits_Nv -= new_peak_N1
            exps_Nv = logits_Nv.exp()
            moment_N1 = scale_N1 * (moment_N1 + mass_N1 * shift_N1)
            moment_N1 += logits_Nv.mul_(exps_Nv).sum(-1, keepdim=True)
            mass_N1 = scale_N1 * mass_N1 + exps_Nv.sum(-1, keepdim=True)
            peak_N1 = new_peak_N1
        log_norm_N1 = peak_N1 + mass_N1.log()
        entropy_N1 = mass_N1.log() - moment_N1 / mass_N1
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, log_norm_N1, entropy_N1)
        ctx.options = options
        return (chosen_N1 - log_norm_N1).squeeze(1), entropy_N1.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, targets_N, log_norm_N1, entropy_N1 = ctx.saved_tensors
        options: _Options = ctx.options
        hidden = hidden_ND.to(options.dtype)
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        wide = log_norm_N1.dtype
        grad_hidden_ND = torch.zeros_like(hidden, dtype=wide) if need_hidden else None
        grad_weight_VD = torch.empty_like(weight_VD) if need_weight else None
        grad_bias_V = torch.empty_like(bias_V) if need_bias else None
        upstream = _Upstream.of(grads, log_norm_N1, entropy_N1)
        for start in range(0, weight_VD.shape[0], options.tile):
            part = slice(start, start + options.tile)
            weight_vD = weight_VD[part]
            logits_Nv = options.logits(hidden, weight_vD, None if bias_V is None else bias_V[part], wide)
            grad_logits_Nv = upstream.through_tile(logits_Nv, targets_N, start, options)
            if grad_bias_V is not None:
                grad_bias_V[part] = grad_logits_Nv.sum(0)
            grad_logits_Nv = grad_logits_Nv.to(options.dtype)
            if grad_hidden_ND is not None:
                grad_hidden_ND += grad_logits_Nv @ weight_vD.to(options.dtype)
            if grad_weight_VD is not None:
                grad_weight_VD[part] = grad_logits_Nv.T @ hidden
        if grad_hidden_ND is not None:
            grad_hidden_ND = grad_hidden_ND.to(hidden_ND.dtype)
        return grad_hidden_ND, grad_weight_VD, grad_bias_V, None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upstream:
    """The gradients of log-probability and entropy per row; `entropy_N1` is None if nothing needs it."""

    logprob_N1: Tensor
    grad_entropy_N1: Tensor | None
    log_norm_N1: Tensor
    entropy_N1: Tensor

    @classmethod
    def of(cls, grads: tuple[Tensor | None, ...], log_norm_N1: Tensor, entropy_N1: Tensor) -> "_Upstream":
        logprob_N, entropy_N = grads
        uses_entropy = entropy_N is not None and bool(entropy_N.any())
        return cls(
            logprob_N1=torch.zeros_like(log_norm_N1) if logprob_N is None else logprob_N.unsqueeze(1),
            grad_entropy_N1=entropy_N.unsqueeze(1) if entropy_N is not None and uses_entropy else None,
            log_norm_N1=log_norm_N1,
            entropy_N1=entropy_N1,
        )

    def through_tile(self, logits_Nv: Tensor, targets_N: Tensor, start: int, options: _Options) -> Tensor:
        """The gradient of the output head's logits in this tile; overwrites `logits_Nv`, the model's."""
        rule, temperature = options.rule, options.temperature
        slope_Nv = None if rule.cap is None else 1 - (logits_Nv / rule.cap).square()
        if temperature != 1.0:
            logits_Nv /= temperature
        rows, columns = _in_tile(targets_N, start, logits_Nv.shape[1])
        logits_Nv -= self.log_norm_N1
        if self.grad_entropy_N1 is not None:
            factor = -self.logprob_N1 - self.grad_entropy_N1 * (logits_Nv + self.entropy_N1)
            grad_Nv = logits_Nv.exp().mul_(factor)
        else:
            grad_Nv = logits_Nv.exp_().mul_(-self.logprob_N1)
        grad_Nv[rows, columns] += self.logprob_N1[rows, 0]
        if rule.scale != temperature:
            grad_Nv *= rule.scale / temperature
        return grad_Nv if slope_Nv is None else grad_Nv.mul_(slope_Nv)


def _in_tile(targets_N: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """The rows whose target is in this tile, and the target's column in it."""
    rows = ((targets_N >= start) & (targets_N < start + width)).nonzero().squeeze(1)
    return rows, targets_N[rows] - start
