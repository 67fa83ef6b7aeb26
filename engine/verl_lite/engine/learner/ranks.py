"""The collectives of learner ranks, and their trivial form for a single process.

Every rank runs the same code on the same samples and computes its shard of them. `RankGroup` in the cluster
room implements this interface over torch.distributed.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

from torch import nn

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Ranks:
    """A single rank. Every method is a collective: all ranks call it, in the same order."""

    rank = 0
    size = 1

    def distribute(self, module: nn.Module) -> None:
        """Shard or replicate the module's weights: once, before an optimiser takes its parameters."""

    def forward(self, module: nn.Module, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`function(*args)` as one forward pass of `module`; inside, the module's weights are gathered."""
        return function(*args, **kwargs)

    def all_reduce_max(self, count: int) -> int:
        """The largest count of any rank."""
        return count

    def all_reduce_sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sum over ranks by name; a name that a rank lacks counts as 0 there."""
        return dict(values)

    def all_gather(self, parts: Mapping[int, T]) -> dict[int, T]:
        """The entries of all ranks, whose keys are distinct."""
        return dict(parts)

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over ranks, unless the backward pass did so."""


SINGLE_RANK = Ranks()
