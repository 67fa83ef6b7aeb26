"""The `data.curriculum` section: which prompts a step takes, by how often they were solved."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from verl_lite.plugins.config_file import ConfigModel


class GateConfig(ConfigModel):
    """Prompts rest for `rest_steps` steps once their success rate leaves (at_or_below, at_or_above).

    visits  how often a prompt must have been sampled before
    """

    at_or_below: float = Field(default=0.0, ge=-1, le=1)  # below 0: never for being too hard
    at_or_above: float = Field(default=1.0, ge=0)  # above 1: never for being too easy
    visits: PositiveInt = 1
    rest_steps: PositiveInt = 20

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
    start: float = Field(default=0.2, gt=0, le=1)
    steps: PositiveInt


class ReplayConfig(ConfigModel):
    """Train again on groups of prompts that are rarely solved, and were.

    num_prompts   groups added to each step
    capacity      groups kept; the oldest leave first
    rare_at       the largest success rate of a group that is kept
    max_age_steps after how many steps a group is too old
    """

    num_prompts: PositiveInt = 1
    capacity: PositiveInt = 256
    rare_at: float = Field(default=0.25, gt=0, lt=1)
    max_age_steps: PositiveInt = 50


class CurriculumConfig(ConfigModel):
    """A prompt's success rate is the moving mean of its groups' fraction of right completions.

    memory   how much of the old rate a visit keeps; 0: the newest group alone
    order    shuffled: epochs in a new order each; difficulty: drawn with a weight of rate x (1 - rate), at
             least `floor` of the largest; a prompt that was never sampled counts as half solved
    """

    gate: GateConfig | None = None
    levels: LevelsConfig | None = None
    replay: ReplayConfig | None = None
    order: Literal["shuffled", "difficulty"] = "shuffled"
    memory: float = Field(default=0.5, ge=0, lt=1)
    floor: float = Field(default=0.05, gt=0, le=1)
