"""The softmax statistics of a tile of logits, and its gradient, as Triton kernels: one program per row.

The same formulas as `TorchTiles` in tiles.py; a tile in bfloat16 is read once per direction, and the
gradient is written over it. All arithmetic is float32. Triton's interpreter runs them on the CPU
(TRITON_INTERPRET=1), which the tests do.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from verl_lite.engine.learner.tiles import Softmax, Tile, Upstream

BLOCK = 2048  # columns at once


@triton.jit
def _tanh(x):
    return 1.0 - 2.0 / (1.0 + tl.exp(2.0 * x))


@triton.jit
def _model_logits(
    tile, bias, at, column, inside, scale, cap,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr,
):  # fmt: skip
    x = tl.load(tile + at + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        x += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    x = x * scale
    if HAS_CAP:
        x = cap * _tanh(x / cap)
    return x


@triton.jit
def _absorb_kernel(
    tile, bias, targets, peak, mass, moment, chosen,
    width, start, stride, scale, cap, temperature,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, ENTROPY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    at = row.to(tl.int64) * stride
    m = tl.load(peak + row)
    s = tl.load(mass + row)
    w = tl.load(moment + row)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < width
        x = _model_logits(tile, bias, at, column, inside, scale, cap, HAS_BIAS, HAS_CAP) / temperature
        new_m = tl.maximum(m, tl.max(tl.where(inside, x, float("-inf")), 0))
        shift = tl.where(s > 0, m - new_m, 0.0)
        factor = tl.where(s > 0, tl.exp(shift), 0.0)
        lower = x - new_m
        exps = tl.where(inside, tl.exp(tl.where(inside, lower, 0.0)), 0.0)
        if ENTROPY:
            w = factor * (w + s * shift) + tl.sum(tl.where(inside, lower * exps, 0.0), 0)
        s = factor * s + tl.sum(exps, 0)
        m = new_m
    tl.store(peak + row, m)
    tl.store(mass + row, s)
    tl.store(moment + row, w)
    column = tl.load(targets + row) - start
    inside = (column >= 0) & (column < width)
    x = _model_logits(tile, bias, at, column, inside, scale, cap, HAS_BIAS, HAS_CAP) / temperature
    tl.store(chosen + row, x, mask=inside)


@triton.jit
def _gradient_kernel(
    tile, bias, targets, log_norm, entropy, grad_logprob, grad_entropy,
    width, start, stride, scale, cap, temperature,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, ENTROPY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    at = row.to(tl.int64) * stride
    norm = tl.load(log_norm + row)
    g = tl.load(grad_logprob + row).to(tl.float32)
    target = tl.load(targets + row) - start
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < width
        x = _model_logits(tile, bias, at, column, inside, scale, cap, HAS_BIAS, HAS_CAP)
        logprob = x / temperature - norm
        factor = -g
        if ENTROPY:
            factor = factor - tl.load(grad_entropy + row).to(tl.float32) * (logprob + tl.load(entropy + row))
        grad = tl.exp(logprob) * factor + tl.where(column == target, g, 0.0)
        grad = grad * (scale / temperature)
        if HAS_CAP:
            grad = grad * (1.0 - (x / cap) * (x / cap))
        tl.store(tile + at + column, grad.to(tile.dtype.element_ty), mask=inside)


class _Kernels:
    """TileMath by the kernels above."""

    def absorb(self, state: Softmax, tile: Tile) -> None:
        rows = (state.peak, state.mass, state.moment, state.chosen)
        _launch(_absorb_kernel, tile, rows, entropy=tile.options.entropy)

    def gradient(self, upstream: Upstream, tile: Tile) -> Tensor:
        with_entropy = upstream.grad_entropy_N1
        rows = (
            upstream.log_norm_N1,
            upstream.entropy_N1,
            upstream.logprob_N1.contiguous(),
            upstream.logprob_N1 if with_entropy is None else with_entropy.contiguous(),
        )
        _launch(_gradient_kernel, tile, rows, entropy=with_entropy is not None)
        return tile.products_Nv


def _launch(kernel: Any, tile: Tile, rows: tuple[Tensor, Tensor, Tensor, Tensor], *, entropy: bool) -> None:
    num_rows, width = tile.products_Nv.shape
    if not num_rows:
        return
    assert tile.products_Nv.stride(1) == 1
    assert all(row.is_contiguous() for row in rows)
    rule = tile.options.rule
    kernel[(num_rows,)](
        tile.products_Nv,
        tile.products_Nv if tile.bias_v is None else tile.bias_v.contiguous(),
        tile.targets_N.contiguous(),
        *rows,
        width,
        tile.start,
        tile.products_Nv.stride(0),
        rule.scale,
        rule.cap or 1.0,
        tile.options.temperature,
        HAS_BIAS=tile.bias_v is not None,
        HAS_CAP=rule.cap is not None,
        ENTROPY=entropy,
        BLOCK=BLOCK,
    )


KERNELS = _Kernels()
