"""What the monitors call too much, and what a rollback rule does about it. Importing it imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from verl_lite.plugins.config_file import ConfigModel

__all__ = ["MonitorsConfig", "RollbackConfig"]

Fraction = Annotated[float, Field(ge=0, le=1)]


class RollbackConfig(ConfigModel):
    """What happens on a reward collapse or a KL blow-up. It is only said, unless `on` says otherwise.

    on                    "nothing": say it and name the last good checkpoint; "stop"; or "rollback" to it
    reward_drop_fraction  collapse: the reward's mean over monitors.window_steps falls below its best such
                          mean by this part of that best one's distance to the lowest
    min_reward_range      a run whose means have moved less than this has nothing to lose yet
    max_kl                blow-up: KL to the reference (or between sampler and trainer), nats a token
    learning_rate_factor  the learning rate is multiplied by this at each rollback
    max_rollbacks         after so many the run stops
    """

    on: Literal["nothing", "stop", "rollback"] = "nothing"
    reward_drop_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_reward_range: PositiveFloat = 0.1
    max_kl: PositiveFloat = 10.0
    learning_rate_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    max_rollbacks: NonNegativeInt = 2


class MonitorsConfig(ConfigModel):
    """Thresholds of the warnings. A number beyond its own gives `warning/<name>` 1 at that step.

    flat_groups           fraction of groups whose rewards are all equal
    entropy_below         nats a token
    clip_fraction         fraction of tokens whose ratio was clipped
    kl_sampler_trainer    nats a token between sampler and trainer
    kl_reference_above    nats a token between policy and reference
    kl_reference_below    the same, its mean over the last window
    held_out_drop         fall of held-out accuracy below its best while the trained reward rose
    length_drift          mean length over its mean in the first window, or the inverse
    truncated_fraction    completions cut at max_new_tokens
    repetition            mean part of a completion's words that repeat earlier four-word sequences
    duplicate_fraction    samples whose text another sample of their group has too
    divergence            trained reward's rise minus a shadow (weight 0) reward's that rose less than half
                          as much, each in standard deviations of its own first window
    error_fraction        rollouts a reward failed on or did not finish in time
    canary_part           of the canary's tolerance
    stale_versions        weights older than the newest by so many updates
    bad_steps             updates skipped so far because of nan or inf
    window_steps          length of the windows that drift, divergence and collapse are measured with
    """

    enabled: bool = True
    flat_groups: Fraction = 0.9
    entropy_below: NonNegativeFloat = 0.01
    clip_fraction: Fraction = 0.3
    kl_sampler_trainer: PositiveFloat = 0.1
    kl_reference_above: PositiveFloat = 1.0
    kl_reference_below: NonNegativeFloat = 1e-6
    held_out_drop: Fraction = 0.1
    length_drift: Annotated[float, Field(gt=1)] = 3.0
    truncated_fraction: Fraction = 0.5
    repetition: Fraction = 0.5
    duplicate_fraction: Fraction = 0.9
    divergence: PositiveFloat = 0.75
    error_fraction: Fraction = 0.05
    canary_part: Fraction = 0.5
    stale_versions: NonNegativeInt = 1
    bad_steps: NonNegativeInt = 0
    window_steps: PositiveInt = 10
    rollback: RollbackConfig = Field(default_factory=RollbackConfig)
