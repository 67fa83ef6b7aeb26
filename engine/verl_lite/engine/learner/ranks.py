"""How the processes that share an update ("ranks") work together; here: one process that does all of it.

Every rank runs the same code on the same samples and computes its share of them. What has to come
from all ranks goes through this interface; `cluster.rank_group.RankGroup` is the one with several.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

from torch import nn

__all__ = ["ALONE", "Ranks"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Ranks:
    """The only rank there is. Every method is a collective: all ranks call it, in the same order."""

    rank = 0
    size = 1

    def place(self, module: nn.Module) -> None:
        """Distribute the module's weights; called once, before an optimiser takes its parameters."""

    def run(self, module: nn.Module, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`function(*args)` as one forward pass of `module`: inside, the module's own weights are whole."""
        return function(*args, **kwargs)

    def largest(self, count: int) -> int:
        """The largest of the ranks' counts."""
        return count

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sum over ranks by name; a rank that lacks a name adds nothing to it."""
        return dict(values)

    def merge(self, parts: Mapping[int, T]) -> dict[int, T]:
        """Every rank's entries together; their keys are distinct."""
        return dict(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all ranks, where the backward pass has not done so."""


ALONE = Ranks()
