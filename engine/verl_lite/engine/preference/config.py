"""The frozen configuration of `verl-lite dpo` and `verl-lite reward-model`. Importing it never imports torch.

name, seed, deterministic, epochs or steps, batch_rows   model   data   learner   checkpoints   trackers
"""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from verl_lite.engine.config.data import ChatConfig, DatasetConfig, RowsConfig
from verl_lite.engine.config.learner import LearnerConfig, OptimizerConfig
from verl_lite.engine.config.model import ModelConfig
from verl_lite.engine.config.records import CheckpointConfig
from verl_lite.plugins.config_file import ConfigModel

METRICS = (
    *("held_out/accuracy", "held_out/margin", "held_out/chosen", "held_out/rejected", "held_out/loss"),
    *("held_out/calibration_error", "train/accuracy", "train/margin", "train/chosen", "train/rejected"),
    *("train/loss", "train/grad_norm", "train/learning_rate"),
)


class PreferenceSource(RowsConfig):
    """Where preferences come from: files as in data.train.path of `train`, or a data set of the hub.

    A row has completions and their ranks or scores, as `verl-lite preferences collect` writes them, or
    `chosen` and `rejected`.
    """

    prompt: str = "prompt"
    """The column with the prompt, where conversations do not hold it; "" for none."""
    chosen: str = "chosen"
    """The column with the better of two answers: text, messages, or a whole conversation."""
    rejected: str = "rejected"
    """The column with the worse one."""

    @property
    def dataset(self) -> DatasetConfig:
        """As a DatasetConfig. Raises its ValueErrors."""
        return DatasetConfig(reference="", tools="", **self.model_dump(exclude={"chosen", "rejected"}))

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("expected exactly one of 'path' (files) and 'hub'")
        return self


class PreferenceDataConfig(ChatConfig):
    """`held_out` is never trained on; without it, `held_out_fraction` of the prompts is held out."""

    train: PreferenceSource
    """The preferences to train on."""
    held_out: PreferenceSource | None = None
    """Preferences never trained on; unset: held_out_fraction of the training ones."""
    held_out_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the prompts to hold out where there is no `held_out`."""
    max_tokens: PositiveInt = 1024
    """Longest prompt and completion together, in tokens."""
    overlong: Literal["error", "drop"] = "error"
    """What a longer row is: an error before training, or dropped and counted."""
    pairs: Literal["all", "adjacent", "best_worst"] = "all"
    """The pairs to compare in a ranking of more than two."""


class PreferenceConfig(ConfigModel):
    """What DPO and reward models share. `steps: 0` trains for `epochs`; a batch has `batch_rows` rows.

    --resume continues from `checkpoints`. `deterministic` and `trackers` mean the same as `deterministic`
    and `logging.trackers` of `train`.
    """

    name: str = Field(default="preferences", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's name: its folder is runs/<name>."""
    seed: NonNegativeInt = 0
    """Seed of everything random in the run."""
    deterministic: bool = False
    """Allow only kernels whose results repeat bit by bit, and one thread on the CPU."""
    epochs: PositiveInt = 1
    """Passes over the pairs, where `steps` is 0."""
    steps: NonNegativeInt = 0
    """Number of updates; 0: train for `epochs`."""
    batch_rows: PositiveInt = 64
    """Rows (pairs) per update."""
    model: ModelConfig
    """The model to start from."""
    data: PreferenceDataConfig
    """The preferences, and how the chat template shows them."""
    learner: LearnerConfig = LearnerConfig(optimizer=OptimizerConfig(learning_rate=1e-6, warmup_steps=10))
    """How an update is computed: optimiser, precision, memory, LoRA."""
    evaluate_every_steps: NonNegativeInt = 0
    """Steps between measurements on held-out pairs; 0: only before and after."""
    checkpoints: CheckpointConfig = CheckpointConfig()
    """When checkpoints are written and which are kept."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Trackers of accelerate.tracking by name; metrics.jsonl is always written."""

    @model_validator(mode="after")
    def _measured(self) -> Self:
        best = self.checkpoints.keep_best
        if best and best not in METRICS:
            raise ValueError(
                f"checkpoints.keep_best={best!r} is not a metric of training on preferences: expected one of "
                f"{', '.join(METRICS)}"
            )
        if best.startswith("held_out/") and not self.evaluate_every_steps:
            raise ValueError(
                f"checkpoints.keep_best={best!r} is only measured with evaluate_every_steps above 0"
            )
        return self

    @model_validator(mode="after")
    def _one_process_of_whole_weights(self) -> Self:
        if self.learner.num_ranks > 1:
            raise ValueError(
                f"learner.num_ranks={self.learner.num_ranks}: training on preferences runs in one process; "
                "set it to 1"
            )
        if self.learner.is_quantized:
            raise ValueError(
                "learner.lora.quantize is not supported for training on preferences: set it to false"
            )
        return self


class DPOConfig(PreferenceConfig):
    """Direct preference optimisation."""

    name: str = Field(default="dpo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's name: its folder is runs/<name>."""
    loss: Literal["sigmoid", "robust", "ipo", "hinge"] = "sigmoid"
    """sigmoid (the paper's), robust, ipo or hinge; docs/preferences.md has the formulas."""
    beta: PositiveFloat = 0.1
    """Strength of the pull towards the reference (ipo: its tau)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The assumed fraction of wrong labels (sigmoid and robust)."""
    length_normalised: bool = False
    """Divide each log-ratio by its number of tokens before the loss."""
    reference: str | None = None
    """A model folder or hub id of the reference; unset: the policy before training."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.label_smoothing and self.loss in ("ipo", "hinge"):
            raise ValueError(
                f"label_smoothing={self.label_smoothing} has no meaning for loss={self.loss}: "
                "use sigmoid or robust, or set it to 0"
            )
        return self


class RewardModelConfig(PreferenceConfig):
    """A sequence-classification model that scores completions."""

    name: str = Field(default="reward-model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's name: its folder is runs/<name>."""
    loss: Literal["bradley_terry", "plackett_luce"] = "bradley_terry"
    """bradley_terry compares pairs, plackett_luce rankings."""
    margin_scale: float = Field(default=0.0, ge=0)
    """Factor on the row's `margin` (or difference of `scores`) that the chosen one must lead by."""
    centring: float = Field(default=0.01, ge=0)
    """Weight of the term that pulls a ranking's mean score to 0; 0.01 is usual."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.margin_scale and self.loss == "plackett_luce":
            raise ValueError("margin_scale needs loss: bradley_terry (a ranking has no margins)")
        return self
