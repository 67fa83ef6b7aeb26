"""Log-probability and entropy of chosen tokens from hidden states, without full logits.

The vocabulary is processed in tiles: forward keeps a running maximum and sums (online softmax), backward
recomputes each tile. At most one tile of logits exists at a time; autograd keeps the inputs and two
vectors. Tiles split the vocabulary rather than the tokens, so each row of the weight's gradient is written
once per micro-batch instead of once per chunk.

Shapes: N tokens, D hidden, V vocabulary, v the tile's part of it.
"""

from typing import Any

import torch
from torch import Tensor


def token_logprobs_and_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, temperature: float = 1.0, tile_mb: int = 16
) -> tuple[Tensor, Tensor]:
    """log p(targets) and the entropy of softmax(hidden @ weight.T / temperature), both of N, in nats.

    Both are differentiable in `hidden_ND` and `weight_VD`. Under autocast the products run in its dtype, the
    rest in float32 (float64 inputs stay float64). `tile_mb` is the size of a tile.
    """
    device_type = hidden_ND.device.type
    dtype = hidden_ND.dtype
    if torch.is_autocast_enabled(device_type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device_type)
    tile = max(256, tile_mb * 2**20 // (4 * max(hidden_ND.shape[0], 1)))
    with torch.autocast(device_type, enabled=False):
        return _TiledLogprobs.apply(hidden_ND, weight_VD, targets_N, temperature, tile, dtype)  # type: ignore[no-any-return, no-untyped-call]


class _TiledLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        temperature: float,
        tile: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        hidden = hidden_ND.to(dtype)
        wide = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        N = hidden.shape[0]
        peak_N1 = hidden.new_full((N, 1), -torch.inf, dtype=wide)
        mass_N1 = hidden.new_zeros((N, 1), dtype=wide)  # sum of exp(l - peak_N1)
        moment_N1 = hidden.new_zeros((N, 1), dtype=wide)  # sum of exp(l - peak_N1) * (l - peak_N1)
        chosen_N1 = hidden.new_zeros((N, 1), dtype=wide)
        for start in range(0, weight_VD.shape[0], tile):
            logits_Nv = _tile_logits(hidden, weight_VD[start : start + tile], temperature, wide)
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
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, log_norm_N1, entropy_N1)
        ctx.temperature, ctx.tile, ctx.dtype = temperature, tile, dtype
        return (chosen_N1 - log_norm_N1).squeeze(1), entropy_N1.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, targets_N, log_norm_N1, entropy_N1 = ctx.saved_tensors
        grad_logprob_N, grad_entropy_N = grads
        hidden = hidden_ND.to(ctx.dtype)
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        wide = log_norm_N1.dtype
        grad_hidden_ND = torch.zeros_like(hidden, dtype=wide) if need_hidden else None
        grad_weight_VD = torch.empty_like(weight_VD) if need_weight else None
        zeros_N1 = torch.zeros_like(log_norm_N1)
        grad_logprob_N1 = zeros_N1 if grad_logprob_N is None else grad_logprob_N.unsqueeze(1)
        uses_entropy = grad_entropy_N is not None and bool(grad_entropy_N.any())
        for start in range(0, weight_VD.shape[0], ctx.tile):
            weight = weight_VD[start : start + ctx.tile]
            logits_Nv = _tile_logits(hidden, weight, ctx.temperature, wide)
            rows, columns = _in_tile(targets_N, start, logits_Nv.shape[1])
            logits_Nv -= log_norm_N1
            if uses_entropy:
                assert grad_entropy_N is not None
                factor = -grad_logprob_N1 - grad_entropy_N.unsqueeze(1) * (logits_Nv + entropy_N1)
                grad_logits_Nv = logits_Nv.exp().mul_(factor)
            else:
                grad_logits_Nv = logits_Nv.exp_().mul_(-grad_logprob_N1)
            grad_logits_Nv[rows, columns] += grad_logprob_N1[rows, 0]
            if ctx.temperature != 1.0:
                grad_logits_Nv /= ctx.temperature
            grad_logits_Nv = grad_logits_Nv.to(ctx.dtype)
            if grad_hidden_ND is not None:
                grad_hidden_ND += grad_logits_Nv @ weight.to(ctx.dtype)
            if grad_weight_VD is not None:
                grad_weight_VD[start : start + ctx.tile] = grad_logits_Nv.T @ hidden
        if grad_hidden_ND is not None:
            grad_hidden_ND = grad_hidden_ND.to(hidden_ND.dtype)
        return grad_hidden_ND, grad_weight_VD, None, None, None, None


def _tile_logits(hidden: Tensor, weight: Tensor, temperature: float, wide: torch.dtype) -> Tensor:
    logits_Nv = (hidden @ weight.to(hidden.dtype).T).to(wide)
    return logits_Nv if temperature == 1.0 else logits_Nv.div_(temperature)


def _in_tile(targets_N: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """The rows whose target is in this tile, and the target's column in it."""
    rows = ((targets_N >= start) & (targets_N < start + width)).nonzero().squeeze(1)
    return rows, targets_N[rows] - start
