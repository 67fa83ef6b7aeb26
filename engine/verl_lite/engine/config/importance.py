"""The `algorithm.importance` section: corrections of the mismatch between sampler and learner."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from verl_lite.plugins.config_file import ConfigModel


class RejectConfig(ConfigModel):
    """Drop tokens or whole completions whose sampler and learner differ too much.

    With r = p_learner / p_sampler:

    statistic      k1: log r, with `low` and `high` given as those of r; k2: (log r)^2 / 2; k3: r - 1 - log r
    over           token: each alone; of a completion's tokens the sum, mean, min or max, for all of them
    low, high      what is kept
    learner        old: the policy that started the step; current: the one being updated
    only_negative  never drops tokens of positive advantage
    """

    statistic: Literal["k1", "k2", "k3"] = "k1"
    over: Literal["token", "sum", "mean", "min", "max"] = "mean"
    low: float = Field(default=0.0, ge=0)
    high: float | None = Field(default=None, gt=0)
    learner: Literal["old", "current"] = "old"
    only_negative: bool = False

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.low >= (math.inf if self.high is None else self.high):
            raise ValueError(f"importance.reject: low={self.low} must be below high={self.high}")
        if self.high is None and self.low == 0.0:
            raise ValueError(
                "importance.reject: expected low, high or both; without a bound nothing is dropped"
            )
        return self


class ImportanceConfig(ConfigModel):
    """Correct differences between sampler and learner probabilities. Their KL is always logged.

    `level` is what one weight is for: a token; a sequence (the product over its tokens), or its geometric
    mean. `reject` applies on top, in any mode.
    """

    mode: Literal["off", "truncate", "mask"] = "off"
    level: Literal["token", "sequence", "geometric"] = "token"
    low: float = Field(default=0.5, ge=0)  # mask: drop tokens with lower weights
    high: float = Field(default=2.0, gt=0)  # truncate: the cap; mask: drop tokens with higher weights
    reject: tuple[RejectConfig, ...] = ()

    @property
    def is_on(self) -> bool:
        """Whether the sampler's log-probabilities decide what a token weighs."""
        return self.mode != "off" or bool(self.reject)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.mode == "mask" and self.low >= self.high:
            raise ValueError(f"importance.low={self.low} must be below importance.high={self.high}")
        return self
