"""One tile of logits: what a softmax over the vocabulary takes from it, and its gradient, in torch.

The same in Triton is in logprob_kernels.py; logprobs.py goes through the tiles.

Shapes: N tokens, D hidden, v the tile's part of the vocabulary.
"""

from dataclasses import dataclass
from typing import Protocol

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TileOptions:
    """How tiles are computed; `dtype` is that of the products, `entropy` whether it is asked for."""

    rule: LogitRule
    temperature: float
    tile: int
    dtype: torch.dtype
    entropy: bool


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Products of the output head: columns `start` and on, with the head's bias for them."""

    products_Nv: Tensor
    bias_v: Tensor | None
    targets_N: Tensor
    start: int
    options: TileOptions

    def logits(self, wide: torch.dtype) -> Tensor:
        """The model's logits_Nv at temperature 1, in `wide`; may be the products themselves."""
        logits_Nv = self.products_Nv.to(wide)
        if self.bias_v is not None:
            logits_Nv += self.bias_v.to(wide)
        return self.options.rule.apply(logits_Nv)

    def targets(self) -> tuple[Tensor, Tensor]:
        """Whether each row's target is in this tile, and its column there (any column otherwise)."""
        width = self.products_Nv.shape[1]
        column_N1 = (self.targets_N - self.start).unsqueeze(1)
        return (column_N1 >= 0) & (column_N1 < width), column_N1.clamp(0, width - 1)


class TileMath(Protocol):
    """What happens to a tile. Both may overwrite its products."""

    def absorb(self, state: Softmax, tile: Tile) -> None:
        """Add the tile to the running softmax."""

    def gradient(self, upstream: Upstream, tile: Tile) -> Tensor:
        """The gradient of the tile's products."""


class TorchTiles:
    """TileMath in torch, in the wide dtype."""

    def absorb(self, state: Softmax, tile: Tile) -> None:
        temperature, keeps_entropy = tile.options.temperature, tile.options.entropy
        logits_Nv = tile.logits(state.mass.dtype)
        if temperature != 1.0:
            logits_Nv /= temperature
        is_here_N1, column_N1 = tile.targets()
        state.chosen = torch.where(is_here_N1, logits_Nv.gather(1, column_N1), state.chosen)
        peak_N1 = torch.maximum(state.peak, logits_Nv.amax(-1, keepdim=True))
        shift_N1 = torch.where(state.mass > 0, state.peak - peak_N1, 0.0)
        scale_N1 = shift_N1.exp() * (state.mass > 0)
        logits_Nv -= peak_N1
        if keeps_entropy:
            exps_Nv = logits_Nv.exp()
            state.moment = scale_N1 * (state.moment + state.mass * shift_N1)
            state.moment += logits_Nv.mul_(exps_Nv).sum(-1, keepdim=True)
        else:
            exps_Nv = logits_Nv.exp_()
        state.mass = scale_N1 * state.mass + exps_Nv.sum(-1, keepdim=True)
        state.peak = peak_N1

    def gradient(self, upstream: Upstream, tile: Tile) -> Tensor:
        rule, temperature = tile.options.rule, tile.options.temperature
        logits_Nv = tile.logits(upstream.log_norm_N1.dtype)
        slope_Nv = None if rule.cap is None else 1 - (logits_Nv / rule.cap).square()
        if temperature != 1.0:
            logits_Nv /= temperature
        logits_Nv -= upstream.log_norm_N1
        if upstream.grad_entropy_N1 is not None:
            factor = -upstream.logprob_N1 - upstream.grad_entropy_N1 * (logits_Nv + upstream.entropy_N1)
            grad_Nv = logits_Nv.exp().mul_(factor)
        else:
            grad_Nv = logits_Nv.exp_().mul_(-upstream.logprob_N1)
        is_here_N1, column_N1 = tile.targets()
        grad_Nv.scatter_add_(1, column_N1, torch.where(is_here_N1, upstream.logprob_N1, 0.0))
        if rule.scale != temperature:
            grad_Nv *= rule.scale / temperature
        return grad_Nv if slope_Nv is None else grad_Nv.mul_(slope_Nv)
