"""Rewards for the length of the completion: `length`."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome

Shape = Literal["linear", "cosine", "overlong"]
Unit = Literal["tokens", "words", "characters"]

# The options each shape reads; one of another shape would be silently ignored.
_OPTIONS_OF: Mapping[Shape, frozenset[str]] = {
    "linear": frozenset({"target", "zero_at"}),
    "cosine": frozenset({"max_length", "at_zero", "at_max", "exceeded"}),
    "overlong": frozenset({"max_length", "buffer"}),
}


class LengthOptions(ConfigModel):
    """The value as a function of the length L.

    linear    1.0 up to `target`, then falling linearly to 0.0 at `zero_at`
    cosine    from `at_zero` (L = 0) along half a cosine to `at_max`, and `exceeded` from `max_length` on
              (Yeo et al., arXiv:2502.03373; their reward is two of these, see below)
    overlong  0.0 up to `max_length - buffer`, then falling linearly to -1.0 at `max_length`, and -1.0
              beyond (DAPO's soft overlong punishment, arXiv:2503.14476, eq. 13)
    """

    shape: Shape = Field(default="linear", description="the function; see above")
    unit: Unit = Field(
        default="tokens",
        description="what is counted; words are separated by white space, and tokens need the rollout's "
        "`completion_ids`",
    )
    target: PositiveInt = Field(default=256, description="linear: the greatest length with value 1.0")
    zero_at: PositiveInt | None = Field(
        default=None, description="linear: the length from which the value is 0.0; by default twice `target`"
    )
    max_length: PositiveInt = Field(
        default=4096, description="cosine and overlong: L_max, usually the sampler's limit"
    )
    buffer: PositiveInt = Field(
        default=1024, description="overlong: L_cache, the range below `max_length` where the punishment grows"
    )
    at_zero: float = Field(
        default=2.0, allow_inf_nan=False, description="cosine: the value of an empty completion"
    )
    at_max: float = Field(
        default=1.0, allow_inf_nan=False, description="cosine: the value just below `max_length`"
    )
    exceeded: float = Field(
        default=-10.0, allow_inf_nan=False, description="cosine: the value from `max_length` on"
    )

    @model_validator(mode="after")
    def _options_fit_the_shape(self) -> "LengthOptions":
        allowed = _OPTIONS_OF[self.shape] | {"shape", "unit"}
        foreign = sorted(self.model_fields_set - allowed)
        if foreign:
            raise ValueError(
                f"shape {self.shape} does not read {', '.join(foreign)}; "
                f"it reads: {', '.join(sorted(_OPTIONS_OF[self.shape]))}"
            )
        if self.zero_at is not None and self.zero_at <= self.target:
            raise ValueError(f"zero_at={self.zero_at} must be above target={self.target}")
        if self.shape == "overlong" and self.buffer > self.max_length:
            raise ValueError(f"buffer={self.buffer} must not be above max_length={self.max_length}")
        return self


@reward("length", options=LengthOptions, isolate=False, cache=False)
def length_reward(rollout: Rollout, options: LengthOptions) -> Score:
    """A value for the completion's length: a straight line, half a cosine, or DAPO's punishment."""
    if options.unit == "tokens" and not rollout.completion_ids and rollout.completion:
        return Score.failed(
            ScoreOutcome.ABSTAIN, "the rollout has no token ids: use unit words or characters"
        )
    size = _size(rollout, options.unit)
    return Score(_VALUES[options.shape](size, options), details={"length": size})


def _size(rollout: Rollout, unit: Unit) -> int:
    if unit == "tokens":
        return rollout.num_sampled
    return len(rollout.completion.split()) if unit == "words" else len(rollout.completion)


def _linear(size: int, options: LengthOptions) -> float:
    if size <= options.target:
        return 1.0
    zero_at = options.zero_at or 2 * options.target
    return max((zero_at - size) / (zero_at - options.target), 0.0)


def _cosine(size: int, options: LengthOptions) -> float:
    # The paper's text defines r_0 as the reward at length 0 and r_L at L_max; so does this.
    if size >= options.max_length:
        return options.exceeded
    falling = (1 + math.cos(math.pi * size / options.max_length)) / 2
    return options.at_max + (options.at_zero - options.at_max) * falling


def _overlong(size: int, options: LengthOptions) -> float:
    free = options.max_length - options.buffer
    if size <= free:
        return 0.0
    return max((free - size) / options.buffer, -1.0)


_VALUES: Mapping[Shape, Callable[[int, LengthOptions], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "overlong": _overlong,
}
