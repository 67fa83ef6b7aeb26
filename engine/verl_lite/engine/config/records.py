"""What a run measures and keeps: evaluation, checkpoints, logs."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from verl_lite.plugins.config_file import ConfigModel


class EvaluationConfig(ConfigModel):
    """Greedy accuracy on data.held_out: before and after RL, and every `every_steps` steps (0: no more).

    A row is right when the reward named `accuracy` (unset: the first one) gives at least `right_at`.
    `weights` are the policy's, or the moving average's of algorithm.kl.reference: ema.
    """

    every_steps: NonNegativeInt = 0
    """Steps between measurements of greedy accuracy on data.held_out; 0: only before and after RL."""
    accuracy: str = ""
    """The reward whose value says whether a row is right; unset: the first one."""
    right_at: float = 1.0
    """A row is right when that reward gives at least this."""
    weights: Literal["policy", "ema"] = "policy"
    """Whose weights are measured: the policy's, or the moving average's of algorithm.kl.reference: ema."""


class CheckpointConfig(ConfigModel):
    """When a stage writes checkpoints: every `every_steps` steps, at Ctrl-C, and at the end of RL."""

    every_steps: NonNegativeInt = 50
    """Steps between checkpoints; 0: none on the way (one is written at Ctrl-C and at the end of RL all the
    same)."""
    keep: NonNegativeInt = 2
    """Number of newest checkpoints to keep until the stage's model is saved; 0: all."""
    keep_every_steps: NonNegativeInt = 0
    """Also keep checkpoints of steps divisible by this number; 0: none."""
    keep_best: str = ""
    """Also keep the best checkpoint by this metric: evaluation/accuracy for RL, sft/validation_loss for SFT,
    held_out/accuracy for DPO and reward models."""
    keep_best_lowest: bool = False
    """The lowest value of keep_best is the best, as for a loss."""


class LoggingConfig(ConfigModel):
    """Trackers of accelerate.tracking by name; metrics.jsonl is always written.

    Rollout records are written every `rollouts_every_steps` steps (0: never). Trackers get a table of the
    best and worst rollouts, `samples` in total, every `samples_every_steps` steps (0: never).
    """

    trackers: tuple[str, ...] = ("tensorboard",)
    """Trackers of accelerate.tracking by name (tensorboard, wandb, mlflow, ...); metrics.jsonl is always
    written."""
    rollouts_every_steps: NonNegativeInt = 1
    """Steps between rollout records (Parquet, all samples with every reward's score); 0: never."""
    samples: PositiveInt = 4
    """Rows in the trackers' table of the best and worst rollouts."""
    samples_every_steps: NonNegativeInt = 10
    """Steps between these tables; 0: never."""
