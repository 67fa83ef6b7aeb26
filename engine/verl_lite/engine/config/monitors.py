"""The thresholds of the monitors, and what a rollback rule does. Importing it never imports torch."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from verl_lite.plugins.config_file import ConfigModel

Fraction = Annotated[float, Field(ge=0, le=1)]


class RollbackConfig(ConfigModel):
    """What to do on a reward collapse or a KL blow-up; by default, only report it.

    on                    "nothing": report it with the last good checkpoint; "stop"; "rollback" to it
    reward_drop_fraction  collapse: the mean reward over monitors.window_steps has fallen from its best by
                          this fraction of the distance between best and lowest
    min_reward_range      no collapse is reported before the means have moved by this much
    max_kl                blow-up: KL to the reference (or between sampler and trainer), nats per token
    learning_rate_factor  the learning rate is multiplied by this at each rollback
    max_rollbacks         the run stops instead of rolling back more often
    """

    on: Literal["nothing", "stop", "rollback"] = "nothing"
    reward_drop_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_reward_range: PositiveFloat = 0.1
    max_kl: PositiveFloat = 10.0
    learning_rate_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    max_rollbacks: NonNegativeInt = 2


class MonitorsConfig(ConfigModel):
    """Thresholds of the warnings. A metric beyond its threshold sets `warning/<name>` to 1 at that step.

    flat_groups           fraction of groups whose rewards are all equal
    entropy_below         nats per token
    clip_fraction         fraction of tokens whose ratio was clipped
    kl_sampler_trainer    nats per token between sampler and trainer; unset: what their dtypes explain (1e-3
                          in float32, 0.05 in bfloat16), and ten times that stops the run; 0.1 without a stop
                          where samples come from older weights or a truncated distribution
    kl_reference_above    nats per token between policy and reference
    kl_reference_below    the same, averaged over the last window
    held_out_drop         fall of held-out accuracy below its best while the trained reward rose
    length_drift          mean length divided by its mean in the first window, or the inverse
    truncated_fraction    fraction of completions cut at max_new_tokens
    repetition            mean fraction of a completion's words that repeat earlier four-word sequences
    duplicate_fraction    fraction of samples with the same text as another sample of their group
    divergence            the trained reward's rise minus that of a shadow reward (weight 0) which rose less
                          than half as much, each in standard deviations of its first window
    error_fraction        fraction of rollouts on which a reward failed or timed out
    canary_part           fraction of the canary's limit
    stale_versions        updates by which sampled weights lag the newest
    tool_errors           fraction of tool calls that failed, named no tool, or could not be read
    slow_environment      share of the trajectories' time that is spent in tools and environments
    bad_steps             updates skipped so far because of nan or inf
    window_steps          window length for drift, divergence and collapse
    """

    enabled: bool = True
    flat_groups: Fraction = 0.9
    entropy_below: NonNegativeFloat = 0.01
    clip_fraction: Fraction = 0.3
    kl_sampler_trainer: PositiveFloat | None = None
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
    tool_errors: Fraction = 0.3
    slow_environment: Fraction = 0.5
    bad_steps: NonNegativeInt = 0
    window_steps: PositiveInt = 10
    rollback: RollbackConfig = Field(default_factory=RollbackConfig)
