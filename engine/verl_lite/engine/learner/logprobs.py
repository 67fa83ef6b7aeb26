"""Log-probability and entropy of chosen tokens from hidden states, without full logits.

The vocabulary is walked in tiles: forward keeps a running maximum and sums (online softmax), backward
recomputes each tile and writes its part of the weight's gradient once. The largest piece of logits
alive at a time is one tile, whatever N and V are; what autograd keeps is the inputs and two vectors.
Tiling the vocabulary rather than the tokens matters: each row of the weight's gradient is written
once a micro-batch instead of once a chunk.

Shapes: N tokens, D hidden, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["token_logprobs_and_entropy"]


def token_logprobs_and_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, temperature: float = 1.0, tile_mb: int = 16
) -> tuple[Tensor, Tensor]:
    """log p(targets) and the entropy of softmax(hidden @ weight.T / temperature), both of N, in nats.

    Both are differentiable in `hidden_ND` and `weight_VD`. Under autocast the products run in its
    dtype and everything after them in float32 (float64 inputs stay float64).
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
        peak = hidden.new_full((N, 1), -torch.inf, dtype=wide)
        mass = hidden.new_zeros((N, 1), dtype=wide)  # sum of exp(l - peak)
        moment = hidden.new_zeros((N, 1), dtype=wide)  # sum of exp(l - peak) * (l - peak)
        chosen = hidden.new_zeros((N, 1), dtype=wide)
        for start in range(0, weight_VD.shape[0], tile):
            logits = _tile_logits(hidden, weight_VD[start : start + tile], temperature, wide)
            rows, columns = _in_tile(targets_N, start, logits.shape[1])
            chosen[rows, 0] = logits[rows, columns]
            new_peak = torch.maximum(peak, logits.amax(-1, keepdim=True))
            shift = torch.where(mass > 0, peak - new_peak, 0.0)
            scale = shift.exp() * (mass > 0)
            logits -= new_peak
            exps = logits.exp()
            moment = scale * (moment + mass * shift) + logits.mul_(exps).sum(-1, keepdim=True)
            mass = scale * mass + exps.sum(-1, keepdim=True)
            peak = new_peak
        log_norm = peak + mass.log()
        entropy = mass.log() - moment / mass
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, log_norm, entropy)
        ctx.temperature, ctx.tile, ctx.dtype = temperature, tile, dtype
        return (chosen - log_norm).squeeze(1), entropy.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, targets_N, log_norm, entropy = ctx.saved_tensors
        grad_logprob, grad_entropy = grads
        hidden = hidden_ND.to(ctx.dtype)
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        wide = log_norm.dtype
        grad_hidden = torch.zeros_like(hidden, dtype=wide) if need_hidden else None
        grad_weight = torch.empty_like(weight_VD) if need_weight else None
        grad_logprob = torch.zeros_like(log_norm) if grad_logprob is None else grad_logprob.unsqueeze(1)
        uses_entropy = grad_entropy is not None and bool(grad_entropy.any())
        for start in range(0, weight_VD.shape[0], ctx.tile):
            weight = weight_VD[start : start + ctx.tile]
            logits = _tile_logits(hidden, weight, ctx.temperature, wide)
            rows, columns = _in_tile(targets_N, start, logits.shape[1])
            logits -= log_norm
            if uses_entropy:
                assert grad_entropy is not None
                factor = -grad_logprob - grad_entropy.unsqueeze(1) * (logits + entropy)
                grad_logits = logits.exp().mul_(factor)
            else:
                grad_logits = logits.exp_().mul_(-grad_logprob)
            grad_logits[rows, columns] += grad_logprob[rows, 0]
            if ctx.temperature != 1.0:
                grad_logits /= ctx.temperature
            grad_logits = grad_logits.to(ctx.dtype)
            if grad_hidden is not None:
                grad_hidden += grad_logits @ weight.to(ctx.dtype)
            if grad_weight is not None:
                grad_weight[start : start + ctx.tile] = grad_logits.T @ hidden
        if grad_hidden is not None:
            grad_hidden = grad_hidden.to(hidden_ND.dtype)
        return grad_hidden, grad_weight, None, None, None, None


def _tile_logits(hidden: Tensor, weight: Tensor, temperature: float, wide: torch.dtype) -> Tensor:
    logits = (hidden @ weight.to(hidden.dtype).T).to(wide)
    return logits if temperature == 1.0 else logits.div_(temperature)


def _in_tile(targets_N: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """Which rows have their target in this tile, and at which column of it."""
    rows = ((targets_N >= start) & (targets_N < start + width)).nonzero().squeeze(1)
    return rows, targets_N[rows] - start
