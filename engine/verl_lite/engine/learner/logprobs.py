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
from functools import cache
from typing import Any

import torch
from torch import Tensor

from verl_lite.engine.learner.tiles import (
    LogitRule,
    Softmax,
    Tile,
    TileMath,
    TileOptions,
    TorchTiles,
    Upstream,
)

PLAIN_LOGITS = LogitRule()
_TORCH = TorchTiles()


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
            tile_math.absorb(state, _tile(hidden, weight_VD, bias_V, targets_N, start, options))
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
            tile = _tile(hidden, weight_VD, bias_V, targets_N, start, options)
            grad_Nv = tile_math.gradient(upstream, tile)
            if grad_bias_V is not None:
                grad_bias_V[part] = grad_Nv.sum(0, dtype=wide)
            grad_Nv = grad_Nv.to(options.dtype)
            if grad_hidden_ND is not None:
                grad_hidden_ND += grad_Nv @ weight_VD[part].to(options.dtype)
            if grad_weight_VD is not None:
                grad_weight_VD[part] = grad_Nv.T @ hidden
        if grad_hidden_ND is not None:
            grad_hidden_ND = grad_hidden_ND.to(hidden_ND.dtype)
        return grad_hidden_ND, grad_weight_VD, grad_bias_V, None, None


def _tile(
    hidden: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    start: int,
    options: TileOptions,
) -> Tile:
    part = slice(start, start + options.tile)
    return Tile(
        products_Nv=hidden @ weight_VD[part].to(hidden.dtype).T,
        bias_v=None if bias_V is None else bias_V[part],
        targets_N=targets_N,
        start=start,
        options=options,
    )


def _tile_math(hidden_ND: Tensor, wide: torch.dtype) -> TileMath:
    if hidden_ND.is_cuda and wide == torch.float32 and _has_triton():
        from verl_lite.engine.learner.logprob_kernels import KERNELS

        return KERNELS
    return _TORCH


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
