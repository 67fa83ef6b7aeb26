"""The `data.curriculum` section: which prompts a step takes, by how often they were solved."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from verl_lite.plugins.config_file import ConfigModel


class GateConfig(ConfigModel):
    """Prompts rest for `rest_steps` steps once their success rate leaves (at_or_below, at_or_above)."""

    at_or_below: float = Field(default=0.0, ge=-1, le=1)
    """A prompt rests at this success rate or below; below 0: never for being too hard."""
    at_or_above: float = Field(default=1.0, ge=0)
    """A prompt rests at this success rate or above; above 1: never for being too easy."""
    visits: PositiveInt = 1
    """How often a prompt must have been sampled before it may rest."""
    rest_steps: PositiveInt = 20
    """For how many steps it rests."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.at_or_below >= self.at_or_above:
            raise ValueError(
                f"gate.at_or_below={self.at_or_below} must be below at_or_above={self.at_or_above}: no "
                "prompt would be left"
            )
        return self


class LevelsConfig(ConfigModel):
    """Easy first: of the rows sorted by `column`, a share that grows from `start` to all within `steps`."""

    column: str
    """The column that sorts the rows from easy to hard."""
    start: float = Field(default=0.2, gt=0, le=1)
    """The share of the sorted rows that the first step draws from."""
    steps: PositiveInt
    """The step from which all rows are drawn from."""


class ReplayConfig(ConfigModel):
    """Train again on groups of prompts that are rarely solved, and were."""

    num_prompts: PositiveInt = 1
    """Groups added to each step."""
    capacity: PositiveInt = 256
    """Groups kept; the oldest leave first."""
    rare_at: float = Field(default=0.25, gt=0, lt=1)
    """The largest success rate of a group that is kept."""
    max_age_steps: PositiveInt = 50
    """After how many steps a group is too old."""


class CurriculumConfig(ConfigModel):
    """A prompt's success rate is the moving mean of its groups' fraction of right completions."""

    gate: GateConfig | None = None
    """Prompts that are always or never solved rest for a while."""
    levels: LevelsConfig | None = None
    """Easy rows first, by a column."""
    replay: ReplayConfig | None = None
    """Train again on groups of prompts that are rarely solved, and were."""
    order: Literal["shuffled", "difficulty"] = "shuffled"
    """shuffled: epochs in a new order each. difficulty: drawn with a weight of rate x (1 - rate), at least
    `floor` of the largest."""
    memory: float = Field(default=0.5, ge=0, lt=1)
    """How much of the old success rate a visit keeps; 0: the newest group alone."""
    floor: float = Field(default=0.05, gt=0, le=1)
    """difficulty: the smallest weight, as a share of the largest."""
