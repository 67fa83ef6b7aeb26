"""Rewards for the length of the completion: `length`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from verl_lite.plugins.contract import Register, hookimpl, reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome


class LengthOptions(BaseModel):
    """1.0 up to `target`, falling in a straight line to 0.0 at `zero_at` (twice the target if not given)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: PositiveInt = 256
    zero_at: PositiveInt | None = None
    unit: Literal["tokens", "words", "characters"] = Field(default="tokens")

    @model_validator(mode="after")
    def _check_order(self) -> "LengthOptions":
        if self.zero_at is not None and self.zero_at <= self.target:
            raise ValueError(f"zero_at={self.zero_at} must be above target={self.target}")
        return self


@reward("length", options=LengthOptions, isolate=False, cache=False)
def length(rollout: Rollout, options: LengthOptions) -> Score:
    """How short the completion is: 1.0 up to the target length, 0.0 from `zero_at` on."""
    if options.unit == "tokens" and not rollout.completion_ids and rollout.completion:
        return Score.failed(
            ScoreOutcome.ABSTAIN, "the rollout has no token ids: use unit words or characters"
        )
    size = _size(rollout, options.unit)
    zero_at = options.zero_at or 2 * options.target
    value = (zero_at - size) / (zero_at - options.target)
    return Score(min(max(value, 0.0), 1.0), details={"length": size})


def _size(rollout: Rollout, unit: str) -> int:
    if unit == "tokens":
        return len(rollout.completion_ids)
    return len(rollout.completion.split()) if unit == "words" else len(rollout.completion)


@hookimpl
def register_rewards(register: Register) -> None:
    register(length)
