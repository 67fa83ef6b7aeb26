"""Gather the rows of one component into calls: one row each, full batches, or whole groups.

Rows are released in any order, once the scores they need are known; that order alone decides which rows
share a call.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from verl_lite.errors import DataError
from verl_lite.plugins.contract import RewardDefinition
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.rollout import Rollout

Rows = tuple[int, ...]


class Receiver(Protocol):
    """Receives the scores of a call: one run of an execution."""

    rollouts: list[Rollout]
    cancelled: bool

    def complete(self, component: int, rows: Sequence[int], scores: Sequence[TimedScore]) -> None: ...


@dataclass(slots=True, eq=False)
class Call:
    """One call of a component, for some rows of a run.

    starts      how many workers died with it
    alone       it needs its own chunk, because it may have killed a worker
    may_split   its rows need not share a call (form "batch", not "group")
    """

    run: Receiver
    component: int
    rows: Rows
    may_split: bool = False
    starts: int = 0
    alone: bool = False
    answered: bool = False


class Batcher:
    """Turns rows into calls. Each row is announced by `expect`, then either released or skipped.

    This base class makes one call per row.
    """

    def expect(self, rows: Sequence[int], rollouts: Sequence[Rollout]) -> None:
        pass

    def release(self, rows: Sequence[int]) -> list[Rows]:
        return [(row,) for row in rows]

    def skip(self, rows: Sequence[int]) -> list[Rows]:
        return []

    def flush(self) -> list[Rows]:
        """The remaining calls, once no more rows can come."""
        return []


def batcher_for(name: str, definition: RewardDefinition) -> Batcher:
    if definition.form == "batch":
        return _Batches(definition.max_batch)
    return _Groups(name) if definition.form == "group" else Batcher()


@dataclass(slots=True)
class _Batches(Batcher):
    max_batch: int
    pending: list[int] = field(default_factory=list)

    def release(self, rows: Sequence[int]) -> list[Rows]:
        self.pending += rows
        full = len(self.pending) - len(self.pending) % self.max_batch
        ready, self.pending = self.pending[:full], self.pending[full:]
        return [tuple(ready[at : at + self.max_batch]) for at in range(0, full, self.max_batch)]

    def flush(self) -> list[Rows]:
        rest, self.pending = self.pending, []
        return [tuple(rest)] if rest else []


@dataclass(slots=True)
class _Groups(Batcher):
    """A group is ready once each of its rows was released or skipped; skipped rows are left out.

    A rollout without a group is its own group.
    """

    name: str
    group_of: dict[int, str | int] = field(default_factory=dict)
    missing: dict[str | int, int] = field(default_factory=lambda: defaultdict(int))
    ready: dict[str | int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def expect(self, rows: Sequence[int], rollouts: Sequence[Rollout]) -> None:
        known = set(self.missing)
        for row, rollout in zip(rows, rollouts, strict=True):
            key = rollout.group or row
            if key in known:
                raise DataError(
                    f"component {self.name!r} scores whole groups, but group {key!r} came in two parts: "
                    "add all samples of a prompt together"
                )
            self.group_of[row] = key
            self.missing[key] += 1

    def release(self, rows: Sequence[int]) -> list[Rows]:
        for row in rows:
            self.ready[self.group_of[row]].append(row)
        return self.skip(rows)

    def skip(self, rows: Sequence[int]) -> list[Rows]:
        complete = []
        for row in rows:
            key = self.group_of.pop(row)
            self.missing[key] -= 1
            if not self.missing[key]:
                found = self.ready.pop(key, [])
                if found:
                    complete.append(tuple(sorted(found)))
        return complete
