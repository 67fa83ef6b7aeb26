"""The score a reward returns, and the scored rollouts made from it. `None` is never 0."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from verl_lite.plugins.fast_init import fast_init
from verl_lite.plugins.rollout import Rollout, clean_text


class ScoreOutcome(StrEnum):
    """How scoring a rollout ended; only `ok` has a value."""

    OK = "ok"
    ABSTAIN = "abstain"  # the reward has nothing to say about this rollout
    ERROR = "error"  # the reward failed; the value is unknown
    TIMEOUT = "timeout"  # the deadline passed; the value is unknown


_OK = ScoreOutcome.OK  # member look-up is a function call in Python 3.11


@dataclass(frozen=True, slots=True)
class StepScore:
    """A process reward: `value` for the span [start, end) of the completion.

    `unit` says whether the positions count characters of the text, tokens of `completion_ids` or `turns`
    of the rollout; a turn is an assistant's, and `StepScore(2, 3, 0.5, "turn")` scores turn 2.
    Raises ValueError for an empty span, a start below 0 and a value that is not finite.
    """

    start: int
    end: int
    value: float
    unit: Literal["char", "token", "turn"] = "char"

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"StepScore({self.start}, {self.end}): expected 0 <= start < end")
        if not math.isfinite(self.value):
            raise ValueError(f"StepScore(value={self.value!r}): expected a finite number")
        if self.unit not in ("char", "token", "turn"):
            raise ValueError(f"StepScore(unit={self.unit!r}): expected 'char', 'token' or 'turn'")


@fast_init
@dataclass(frozen=True, slots=True)
class Score:
    """One reward's score of one rollout. `value` is a finite float exactly when `outcome` is ok.

    `value` is for the whole completion; `steps` are process rewards on top of it. A reward with steps
    only still gives the whole completion a value, often 0.0.
    """

    value: float | None
    outcome: ScoreOutcome = ScoreOutcome.OK
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[StepScore, ...] = ()

    def __post_init__(self) -> None:
        if not self.reason.isascii():
            object.__setattr__(self, "reason", clean_text(self.reason))
        if self.value is None:
            if self.outcome is _OK:
                object.__setattr__(self, "outcome", ScoreOutcome.ABSTAIN)
            return
        if type(self.value) is not float:
            object.__setattr__(self, "value", _number(self.value))
        if self.outcome is not _OK:
            raise ValueError(f"Score(value={self.value!r}, outcome={self.outcome}): a value means 'ok'")
        if not math.isfinite(self.value):
            raise ValueError(f"Score(value={self.value!r}): expected a finite number")

    @classmethod
    def failed(cls, outcome: ScoreOutcome, reason: str, **details: object) -> "Score":
        """A score without a value: abstain, error or timeout, with the reason."""
        return cls(None, outcome, reason, details)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Score":
        """The score of these fields as JSON has them, all but `value` optional; other keys are ignored."""
        outcome, steps = ScoreOutcome(fields.get("outcome", "ok")), fields.get("steps", ())
        reason, details = str(fields.get("reason", "")), fields.get("details", {})
        return cls(fields["value"], outcome, reason, details, tuple(StepScore(**step) for step in steps))


class NotAScoreError(TypeError):
    """A reward returned something that the contract does not allow, whatever the rollout."""


def to_score(answer: object) -> Score:
    """Convert what a reward returned (Score, float, int, bool or None for abstain) to a Score.

    Raises NotAScoreError, a TypeError, for other types and ValueError for nan and inf.

    >>> to_score(True).value, to_score(None).outcome.value
    (1.0, 'abstain')
    """
    if isinstance(answer, Score):
        return answer
    if answer is None:
        return Score(None, ScoreOutcome.ABSTAIN)
    return Score(_number(answer))


def _number(value: object) -> float:
    """A number of Python, numpy or torch as a float."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    item = getattr(value, "item", None)  # numpy and torch scalars, without importing either
    if callable(item) and getattr(value, "ndim", None) == 0:
        return _number(item())
    raise NotAScoreError(
        f"a reward returned {type(value).__name__} ({value!r:.80}): expected Score, float, int, bool or None"
    )


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentScore:
    """One component's part in one rollout's reward.

    `contribution` is what it added to (or multiplied into) the reward: the value after clip, scale and
    offset, times `weight`. Without a value it is None, with two exceptions: the policy `zero` counts the
    value as 0.0, and a closed `when:` adds 0.0 to a sum. `latency_s` is the reward's own seconds (a
    batch's time is divided equally).
    """

    score: Score
    weight: float
    contribution: float | None
    latency_s: float = 0.0


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRollout:
    """A rollout with every component's score. `reward` is None when the sample was dropped.

    `components` has one entry per reward of the config, in its order; those of a nested group are named
    "group/reward" and precede the group's own entry. The entries without "/" make up `reward`, the
    outcome reward of the whole completion (under `combine: gdpo` the plain sum of the contributions;
    the advantages come from composite/gdpo.py). `token_rewards` has one value per completion token if a
    component gave process rewards, else it is empty.
    """

    rollout: Rollout
    components: Mapping[str, ComponentScore]
    reward: float | None
    dropped_because: str = ""
    token_rewards: Sequence[float] = ()


@dataclass(frozen=True, slots=True, order=True)
class SlowRow:
    """A rollout and how long its score took. `row` is its id, or "#" and its position without one."""

    latency_s: float
    row: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredBatch:
    """The result of one scoring pass: rows in the order of the rollouts, and the metrics of the pass.

    `slowest` lists each component's slowest rollouts, slowest first.
    """

    rows: Sequence[ScoredRollout]
    metrics: Mapping[str, float]
    slowest: Mapping[str, Sequence[SlowRow]] = field(default_factory=dict)
