"""Run components in the calling process and thread: the fast path for rewards that cannot hang."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.batcher import Rows
from verl_lite.plugins.execution.calls import Caller
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.rollout import Rollout

__all__ = ["InlineRunner", "private_copy"]

_SHARED = (str, int, float, bool, bytes, type(None))


class InlineRunner:
    """Answers the calls of one component here and now. Deadlines cannot be enforced in this form."""

    def __init__(self, component: Component) -> None:
        self._caller = Caller(component.definition, component.options, component.timeout_s)
        self._one_by_one = component.definition.form == "rollout"

    def run(self, calls: Sequence[Rows], rollouts: Sequence[Rollout]) -> list[TimedScore]:
        """The scores of all rows of the calls, in their order."""
        caller = self._caller
        if self._one_by_one and caller.build() is None:
            return [caller.one(private_copy(rollouts[row])) for (row,) in calls]
        scores: list[TimedScore] = []
        for rows in calls:
            scores += caller.answer([private_copy(rollouts[row]) for row in rows])
        return scores


def private_copy(rollout: Rollout) -> Rollout:
    """A rollout whose containers are its own: what a reward does to them reaches nobody else."""
    fields = {name: _own(getattr(rollout, name)) for name in _CONTAINERS if getattr(rollout, name)}
    return replace(rollout, **fields) if fields else rollout


_CONTAINERS = ("prompt", "columns", "prompt_ids", "completion_ids", "logprobs")


def _own(value: Any) -> Any:
    kind = type(value)
    if kind in _SHARED:
        return value
    if kind is dict:
        return {key: _own(item) for key, item in value.items()}
    if kind is list:
        return [_own(item) for item in value]
    if kind is tuple:
        return tuple(_own(item) for item in value)
    return copy.deepcopy(value)
