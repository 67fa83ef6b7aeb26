"""The `algorithm.importance` section: corrections of the mismatch between sampler and learner."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from verl_lite.plugins.config_file import ConfigModel


class RejectConfig(ConfigModel):
    """Drop tokens or whole completions whose sampler and learner differ too much.

    With r = p_learner / p_sampler:
    """

    statistic: Literal["k1", "k2", "k3"] = "k1"
    """What is measured, with r = p_learner / p_sampler: k1 is log r, with low and high given as those of r;
    k2 is (log r)^2 / 2; k3 is r - 1 - log r."""
    over: Literal["token", "sum", "mean", "min", "max"] = "mean"
    """Each token alone, or the sum, mean, min or max of a completion's tokens, for all of them."""
    low: float = Field(default=0.0, ge=0)
    """What lies below is dropped."""
    high: float | None = Field(default=None, gt=0)
    """What lies above is dropped; unset: no bound."""
    learner: Literal["old", "current"] = "old"
    """old: the policy that started the step; current: the one being updated."""
    only_negative: bool = False
    """Never drop tokens of positive advantage."""

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
    """off; truncate: cap the importance weights between learner and sampler; mask: drop tokens with weights
    outside the bounds."""
    level: Literal["token", "sequence", "geometric"] = "token"
    """One weight per token, or one per completion."""
    low: float = Field(default=0.5, ge=0)
    """mask: drop tokens with lower weights."""
    high: float = Field(default=2.0, gt=0)
    """truncate: the cap; mask: drop tokens with higher weights."""
    reject: tuple[RejectConfig, ...] = ()
    """Drop tokens or whole completions whose sampler and learner differ too much."""

    @property
    def is_on(self) -> bool:
        """Whether the sampler's log-probabilities decide what a token weighs."""
        return self.mode != "off" or bool(self.reject)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.mode == "mask" and self.low >= self.high:
            raise ValueError(f"importance.low={self.low} must be below importance.high={self.high}")
        return self
