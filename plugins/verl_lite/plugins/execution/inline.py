"""Run components in the calling process and thread: the fast path for rewards that cannot hang."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from verl_lite.plugins.contract import BUILTIN_DISTRIBUTION, Component
from verl_lite.plugins.execution.batcher import Rows
from verl_lite.plugins.execution.calls import Caller
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.rollout import Rollout

_IMMUTABLE = frozenset({str, int, float, bool, bytes, type(None)})


class InlineRunner:
    """Answers the calls of one component here and now, without enforcing deadlines."""

    def __init__(self, component: Component) -> None:
        self._caller = Caller(component)
        self._one_by_one = component.definition.form == "rollout"
        # Our own rewards do not change their input; a copy would cost more than they do.
        is_ours = component.definition.distribution == BUILTIN_DISTRIBUTION
        self._private: Callable[[Rollout], Rollout] | None = None if is_ours else private_copy

    def build(self) -> None:
        """Build a reward of class form now, not at the first call."""
        self._caller.build()

    def run(self, calls: Sequence[Rows], rollouts: Sequence[Rollout]) -> list[TimedScore]:
        """The scores of all rows of the calls, in order."""
        caller = self._caller
        given = [rollouts[row] for rows in calls for row in rows]
        if self._private is not None:
            given = [self._private(rollout) for rollout in given]
        if self._one_by_one and caller.build() is None:
            return [caller.one(rollout) for rollout in given]
        scores: list[TimedScore] = []
        for rows in calls:
            scores += caller.answer(given[len(scores) : len(scores) + len(rows)])
        return scores


def private_copy(rollout: Rollout) -> Rollout:
    """A copy with its own containers, so that a reward's changes reach nothing else."""
    if type(rollout) is not Rollout:
        return copy.deepcopy(rollout)
    # Written out because it is the hot path: dataclasses.replace takes three times as long.
    return Rollout(
        completion=rollout.completion,
        prompt=_own(rollout.prompt),
        reference=rollout.reference,
        columns=_own(rollout.columns),
        id=rollout.id,
        group=rollout.group,
        sample_index=rollout.sample_index,
        finish_reason=rollout.finish_reason,
        prompt_ids=_own_numbers(rollout.prompt_ids),
        completion_ids=_own_numbers(rollout.completion_ids),
        logprobs=_own_numbers(rollout.logprobs),
        policy_version=rollout.policy_version,
        token_versions=_own_numbers(rollout.token_versions),
        sampling=rollout.sampling,
        turns=rollout.turns if not rollout.turns else copy.deepcopy(rollout.turns),
        segments=rollout.segments,
    )


def _own(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: item if type(item) in _IMMUTABLE else _own(item) for key, item in value.items()}
    if kind is list:
        return [item if type(item) in _IMMUTABLE else _own(item) for item in value]
    if kind is tuple:
        return tuple([_own(item) for item in value])
    return value if kind in _IMMUTABLE else copy.deepcopy(value)


def _own_numbers(numbers: Sequence[Any]) -> Sequence[Any]:
    return numbers if type(numbers) is tuple else copy.copy(numbers)
