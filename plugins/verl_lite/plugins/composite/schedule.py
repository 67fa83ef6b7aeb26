"""Weights that follow a schedule over training steps."""

import bisect
from typing import Annotated

from pydantic import Discriminator, FiniteFloat, NonNegativeInt, Tag, model_validator

from verl_lite.plugins.config_file import ConfigModel


class Schedule(ConfigModel):
    """Exactly one of three shapes; the keys of `linear` and `step` are training steps."""

    constant: FiniteFloat | None = None
    """The same weight at every step."""
    linear: dict[NonNegativeInt, FiniteFloat] | None = None
    """Straight lines between the points (step to weight), flat before the first and after the last."""
    step: dict[NonNegativeInt, FiniteFloat] | None = None
    """Each weight holds from its step on; the first one also before it."""

    @model_validator(mode="after")
    def _one_shape(self) -> "Schedule":
        given = [name for name in ("constant", "linear", "step") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of constant, linear or step, got {' and '.join(given) or 'none'}; "
                "for example {linear: {0: 0.0, 100: 1.0}}"
            )
        if not (self.points or given == ["constant"]):
            raise ValueError(f"{given[0]}: expected at least one point, for example {{0: 0.0, 100: 1.0}}")
        return self

    @property
    def points(self) -> dict[int, float]:
        """The points of `linear` or `step`, as given; empty for `constant`."""
        return self.linear or self.step or {}


def weight_at(weight: float | Schedule, step: int) -> float:
    """The weight at training step `step`.

    >>> weight_at(Schedule(linear={0: 0.0, 100: 1.0}), 25), weight_at(Schedule(step={0: 0.0, 50: 0.5}), 49)
    (0.25, 0.0)
    """
    if not isinstance(weight, Schedule):
        return weight
    if weight.constant is not None:
        return weight.constant
    steps = sorted(weight.points)
    after = bisect.bisect_right(steps, step)
    if after == 0:
        return weight.points[steps[0]]
    left = steps[after - 1]
    if after == len(steps) or weight.linear is None:
        return weight.points[left]
    right = steps[after]
    share = (step - left) / (right - left)
    return weight.points[left] + share * (weight.points[right] - weight.points[left])


def weights_of(weight: float | Schedule) -> list[float]:
    """Every weight in `weight`: the number itself, or those of the schedule's points."""
    if not isinstance(weight, Schedule):
        return [weight]
    return [weight.constant] if weight.constant is not None else list(weight.points.values())


def _shape(value: object) -> str:
    return "schedule" if isinstance(value, (dict, Schedule)) else "number"


Weight = Annotated[
    Annotated[FiniteFloat, Tag("number")] | Annotated[Schedule, Tag("schedule")], Discriminator(_shape)
]
