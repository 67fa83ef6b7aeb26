"""Log-probability and entropy of chosen tokens from hidden states, without full logits.

The vocabulary is processed in tiles: forward keeps a running maximum and sums (online softmax), backward
recomputes each tile. At most one tile of logits exists at a time; autograd keeps the inputs and two
vectors. Tiles split the vocabulary rather than the tokens, so each row of the weight's gradient is written
once per micro-batch instead of once per chunk.

A head may have a bias, multiply its logits by a constant (Cohere, Granite, Falcon-H1) and cap them softly
(Gemma 2): all of it happens inside the tile, in both directions. What follows the matrix product is written
twice: in torch, and as Triton kernels that read a tile once (logprob_kernels.py), for GPUs. Neither waits for
the GPU.

Shapes: N tokens, D hidden, V vocabulary, v the tile's part of it.
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

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


def token_logprobs(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    rule: LogitRule = PLAIN_LOGITS,
    temperature: float = 1.0,
    tile_mb: int = 16,
) -> Tensor:
    """log p(targets) of softmax(rule(hidden @ weight.T + bias) / temperature), in nats: logprobs_N.

    Differentiable in `hidden_ND`, `weight_VD` and `bias_V`. Under autocast the products run in its dtype, the
    rest in float32 (float64 inputs stay float64). `tile_mb` is the size of a tile in float32.
    """
    options = _options(hidden_ND, rule=rule, temperature=temperature, tile_mb=tile_mb, entropy=False)
    return _apply(hidden_ND, weight_VD, bias_V, targets_N, options)[0]


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
    """`token_logprobs` and the entropy of the same distribution, in nats: (logprobs_N, entropy_N).

    The entropy is differentiable too; a loss that does not use it pays nothing for that.
    """
    options = _options(hidden_ND, rule=rule, temperature=temperature, tile_mb=tile_mb, entropy=True)
    return _apply(hidden_ND, weight_VD, bias_V, targets_N, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class TileOptions:
    """How tiles are computed; `dtype` is that of the products, `entropy` whether it is asked for."""

    rule: LogitRule
    temperature: float
    tile: int
    dtype: torch.dtype
    entropy: bool

    def products(self, hidden: Tensor, weight_vD: Tensor) -> Tensor:
        """The output head's products_Nv, without its bias: a tensor of their own."""
        return hidden @ weight_vD.to(hidden.dtype).T


@dataclass(slots=True, kw_only=True)
class Softmax:
    """The running softmax of N rows, all of (N, 1); `tile` updates them in place.

    `mass` is the sum of exp(l - peak), `moment` that of exp(l - peak) * (l - peak), `chosen` the target's l.
    """

    peak: Tensor
    mass: Tensor
    moment: Tensor
    chosen: Tensor

    @classmethod
    def empty(cls, like_ND: Tensor, dtype: torch.dtype) -> "Softmax":
        size = (like_ND.shape[0], 1)
        zeros = [like_ND.new_zeros(size, dtype=dtype) for _ in range(3)]
        peak = like_ND.new_full(size, -torch.inf, dtype=dtype)
        return cls(peak=peak, mass=zeros[0], moment=zeros[1], chosen=zeros[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The gradients of log-probability and entropy per row; `grad_entropy_N1` is None if nothing needs it."""

    logprob_N1: Tensor
    grad_entropy_N1: Tensor | None
    log_norm_N1: Tensor
    entropy_N1: Tensor


class TileMath(Protocol):
    """What happens to a tile of products; `start` is its first column. Both may overwrite the tile."""

    def absorb(
        self,
        state: Softmax,
        tile_Nv: Tensor,
        bias_v: Tensor | None,
        targets_N: Tensor,
        start: int,
        options: TileOptions,
    ) -> None:
        """Add the tile to the running softmax."""

    def gradient(
        self,
        upstream: Upstream,
        tile_Nv: Tensor,
        bias_v: Tensor | None,
        targets_N: Tensor,
        start: int,
        options: TileOptions,
    ) -> Tensor:
        """The gradient of the tile's products."""


def _options(
    hidden_ND: Tensor, *, rule: LogitRule, temperature: float, tile_mb: int, entropy: bool
) -> TileOptions:
    device_type, dtype = hidden_ND.device.type, hidden_ND.dtype
    if torch.is_autocast_enabled(device_type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device_type)
    tile = max(256, tile_mb * 2**20 // (4 * max(hidden_ND.shape[0], 1)))
    return TileOptions(rule=rule, temperature=temperature, tile=tile, dtype=dtype, entropy=entropy)


def _apply(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, options: TileOptions
) -> tuple[Tensor, Tensor]:
    with torch.autocast(hidden_ND.device.type, enabled=False):
        return _TiledLogprobs.apply(hidden_ND, weight_VD, bias_V, targets_N, options)  # type: ignore[no-any-return, no-untyped-call]


class _TiledLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        options: TileOptions,
    ) -> tuple[Tensor, Tensor]:
        hidden = hidden_ND.to(options.dtype)
        wide = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        state, tile_math = Softmax.empty(hidden, wide), _tile_math(hidden, wide)
        for start in range(0, weight_VD.shape[0], options.tile):
            part = slice(start, start + options.tile)
            tile_Nv = options.products(hidden, weight_VD[part])
            bias_v = None if bias_V is None else bias_V[part]
            tile_math.absorb(state, tile_Nv, bias_v, targets_N, start, options)
        log_mass_N1 = state.mass.log()
        log_norm_N1 = state.peak + log_mass_N1
        entropy_N1 = log_mass_N1 - state.moment / state.mass
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, log_norm_N1, entropy_N1)
        ctx.options = options
        ctx.set_materialize_grads(False)  # a loss without entropy gives None for its gradient
        entropy_N = entropy_N1.squeeze(1)
        if not options.entropy:
            ctx.mark_non_differentiable(entropy_N)
        return (state.chosen - log_norm_N1).squeeze(1), entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, targets_N, log_norm_N1, entropy_N1 = ctx.saved_tensors
        options: TileOptions = ctx.options
        hidden = hidden_ND.to(options.dtype)
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        wide = log_norm_N1.dtype
        tile_math = _tile_math(hidden, wide)
        grad_hidden_ND = torch.zeros_like(hidden, dtype=wide) if need_hidden else None
        grad_weight_VD = torch.empty_like(weight_VD) if need_weight else None
        grad_bias_V = torch.empty_like(bias_V) if need_bias else None
        logprob_N, entropy_N = grads
        upstream = Upstream(
            logprob_N1=torch.zeros_like(log_norm_N1) if logprob_N is None else logprob_N.unsqueeze(1),
            grad_entropy_N1=None if entropy_N is None else entropy_N.unsqueeze(1),
            log_norm_N1=log_norm_N1,
            entropy_N1=entropy_N1,
        )
        for start in range(0, weight_VD.shape[0], options.tile):
            part = slice(start, start + options.tile)
            weight_vD = weight_VD[part]
            tile_Nv = options.products(hidden, weight_vD)
            bias_v = None if bias_V is None else bias_V[part]
            grad_Nv = tile_math.gradient(upstream, tile_Nv, bias_v, targets_N, start, options)
            if grad_bias_V is not None:
                grad_bias_V[part] = grad_Nv.sum(0, dtype=wide)
            grad_Nv = grad_Nv.to(options.dtype)
            if grad_hidden_ND is not None:
                grad_hidden_ND += grad_Nv @ weight_vD.to(options.dtype)
            if grad_weight_VD is not None:
                grad_weight_VD[part] = grad_Nv.T @ hidden
        if grad_hidden_ND is not None:
            grad_hidden_ND = grad_hidden_ND.to(hidden_ND.dtype)
        return grad_hidden_ND, grad_weight_VD, grad_bias_V, None, None


def _tile_math(hidden_ND: Tensor, wide: torch.dtype) -> TileMath:
    if hidden_ND.is_cuda and wide == torch.float32 and _has_triton():
        from verl_lite.engine.learner.logprob_kernels import KERNELS

        return KERNELS
    return _TORCH


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


class _TorchTiles:
    """TileMath in torch, in the wide dtype."""

    def absorb(
        self,
        state: Softmax,
        tile_Nv: Tensor,
        bias_v: Tensor | None,
        targets_N: Tensor,
        start: int,
        options: TileOptions,
    ) -> None:
        logits_Nv = _logits(tile_Nv, bias_v, options, state.mass.dtype)
        if options.temperature != 1.0:
            logits_Nv /= options.temperature
        is_here_N1, column_N1 = _in_tile(targets_N, start, logits_Nv.shape[1])
        state.chosen = torch.where(is_here_N1, logits_Nv.gather(1, column_N1), state.chosen)
        peak_N1 = torch.maximum(state.peak, logits_Nv.amax(-1, keepdim=True))
        shift_N1 = torch.where(state.mass > 0, state.peak - peak_N1, 0.0)
        scale_N1 = shift_N1.exp() * (state.mass > 0)
        logits_Nv -= peak_N1
        if options.entropy:
            exps_Nv = logits_Nv.exp()
            state.moment = scale_N1 * (state.moment + state.mass * shift_N1)
            state.moment += logits_Nv.mul_(exps_Nv).sum(-1, keepdim=True)
        else:
            exps_Nv = logits_Nv.exp_()
        state.mass = scale_N1 * state.mass + exps_Nv.sum(-1, keepdim=True)
        state.peak = peak_N1

    def gradient(
        self,
        upstream: Upstream,
        tile_Nv: Tensor,
        bias_v: Tensor | None,
        targets_N: Tensor,
        start: int,
        options: TileOptions,
    ) -> Tensor:
        rule, temperature = options.rule, options.temperature
        logits_Nv = _logits(tile_Nv, bias_v, options, upstream.log_norm_N1.dtype)
        slope_Nv = None if rule.cap is None else 1 - (logits_Nv / rule.cap).square()
        if temperature != 1.0:
            logits_Nv /= temperature
        logits_Nv -= upstream.log_norm_N1
        if upstream.grad_entropy_N1 is not None:
            factor = -upstream.logprob_N1 - upstream.grad_entropy_N1 * (logits_Nv + upstream.entropy_N1)
            grad_Nv = logits_Nv.exp().mul_(factor)
        else:
            grad_Nv = logits_Nv.exp_().mul_(-upstream.logprob_N1)
        is_here_N1, column_N1 = _in_tile(targets_N, start, logits_Nv.shape[1])
        grad_Nv.scatter_add_(1, column_N1, torch.where(is_here_N1, upstream.logprob_N1, 0.0))
        if rule.scale != temperature:
            grad_Nv *= rule.scale / temperature
        return grad_Nv if slope_Nv is None else grad_Nv.mul_(slope_Nv)


_TORCH = _TorchTiles()


def _logits(tile_Nv: Tensor, bias_v: Tensor | None, options: TileOptions, wide: torch.dtype) -> Tensor:
    """The model's logits_Nv of a tile at temperature 1; may be the tile itself."""
    logits_Nv = tile_Nv.to(wide)
    if bias_v is not None:
        logits_Nv += bias_v.to(wide)
    return options.rule.apply(logits_Nv)


def _in_tile(targets_N: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """Whether each row's target is in this tile, and its column there (any column otherwise)."""
    column_N1 = (targets_N - start).unsqueeze(1)
    return (column_N1 >= 0) & (column_N1 < width), column_N1.clamp(0, width - 1)
