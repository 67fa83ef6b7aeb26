"""The thresholds of the monitors, and what a rollback rule does. Importing it never imports torch."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from verl_lite.plugins.config_file import ConfigModel

Fraction = Annotated[float, Field(ge=0, le=1)]


class RollbackConfig(ConfigModel):
    """What to do on a reward collapse or a KL blow-up; by default, only report it."""

    on: Literal["nothing", "stop", "rollback"] = "nothing"
    """What a collapse of the reward or a blow-up of the KL does: only report it with the last good
    checkpoint, stop, or go back to that checkpoint."""
    reward_drop_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Collapse: the mean reward over monitors.window_steps has fallen from its best by this fraction of the
    distance between best and lowest."""
    min_reward_range: PositiveFloat = 0.1
    """No collapse is reported before the means have moved by this much."""
    max_kl: PositiveFloat = 10.0
    """Blow-up: KL to the reference (or between sampler and trainer), in nats per token."""
    learning_rate_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The learning rate is multiplied by this at each rollback."""
    max_rollbacks: NonNegativeInt = 2
    """The run stops instead of rolling back more often."""


class MonitorsConfig(ConfigModel):
    """Thresholds of the warnings. A metric beyond its threshold sets `warning/<name>` to 1 at that step."""

    enabled: bool = True
    """Whether the monitors run."""
    flat_groups: Fraction = 0.9
    """Warn above this fraction of groups whose rewards are all equal: they teach nothing."""
    entropy_below: NonNegativeFloat = 0.01
    """Warn below this entropy, in nats per token."""
    clip_fraction: Fraction = 0.3
    """Warn above this fraction of tokens whose ratio was clipped."""
    kl_sampler_trainer: PositiveFloat | None = None
    """Warn above this KL between sampler and trainer, in nats per token; ten times that stops the run. Unset:
    what their dtypes explain (1e-3 in float32, 0.05 in bfloat16); 0.1 without a stop where samples come
    from older weights or a truncated distribution."""
    kl_reference_above: PositiveFloat = 1.0
    """Warn above this KL between policy and reference, in nats per token."""
    kl_reference_below: NonNegativeFloat = 1e-6
    """Warn below this KL to the reference, averaged over the last window: the policy does not move."""
    held_out_drop: Fraction = 0.1
    """Warn when held-out accuracy falls this far below its best while the trained reward rose."""
    length_drift: Annotated[float, Field(gt=1)] = 3.0
    """Warn when the mean length is this many times its mean in the first window, or its inverse."""
    truncated_fraction: Fraction = 0.5
    """Warn above this fraction of completions cut at max_new_tokens."""
    repetition: Fraction = 0.5
    """Warn above this mean fraction of a completion's words that repeat earlier four-word sequences."""
    duplicate_fraction: Fraction = 0.9
    """Warn above this fraction of samples with the same text as another sample of their group."""
    divergence: PositiveFloat = 0.75
    """Warn when the trained reward rose by this much more than a shadow reward (weight 0) that rose less than
    half as much, each in standard deviations of its first window: a sign of reward hacking."""
    error_fraction: Fraction = 0.05
    """Warn above this fraction of rollouts on which a reward failed or timed out."""
    canary_part: Fraction = 0.5
    """Warn above this fraction of the canary's limit."""
    stale_versions: NonNegativeInt = 1
    """Warn when sampled weights lag the newest by more updates than this."""
    tool_errors: Fraction = 0.3
    """Warn above this fraction of tool calls that failed, named no tool, or could not be read."""
    slow_environment: Fraction = 0.5
    """Warn above this share of the trajectories' time that is spent in tools and environments."""
    bad_steps: NonNegativeInt = 0
    """Warn above this many updates skipped so far because of nan or inf."""
    window_steps: PositiveInt = 10
    """Length in steps of the window for drift, divergence and collapse."""
    rollback: RollbackConfig = Field(default_factory=RollbackConfig)
    """What a collapse or a blow-up does."""
