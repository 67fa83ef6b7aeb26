"""The reward `environment`: a number that the rollout's environment gave."""

from pydantic import Field

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.paths import MISSING, dig
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome


class EnvironmentRewardOptions(ConfigModel):
    """Which of the environment's details is the value."""

    key: str = Field(
        default="reward",
        description="its path in the column environment: of verifiers and OpenEnv, or metrics.NAME",
    )


@reward("environment", options=EnvironmentRewardOptions, isolate=False, cache=False)
def environment_reward(rollout: Rollout, options: EnvironmentRewardOptions) -> Score:
    """A number that the environment gave in its details; abstains where it gave none.

    True counts as 1.0 and False as 0.0. What is no number is an error, never 0.
    """
    found = dig(rollout.columns.get("environment"), options.key)
    if found is MISSING or found is None:
        cut = f": the trajectory was cut before ({rollout.finish_reason})" if rollout.is_truncated else ""
        return Score.failed(ScoreOutcome.ABSTAIN, f"the environment gave no {options.key}{cut}")
    if not isinstance(found, (bool, int, float)):
        raise TypeError(f"the environment's {options.key} is {found!r:.80}: expected a number")
    return Score(float(found))
