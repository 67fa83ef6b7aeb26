"""The frozen configuration of `verl-lite dpo` and `verl-lite reward-model`. Importing it never imports torch.

name, seed, deterministic, epochs or steps, batch_rows   model   data   learner   checkpoints   trackers
"""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from verl_lite.engine.config.algorithm import LearnerConfig, OptimizerConfig
from verl_lite.engine.config.data import ChatConfig, DatasetConfig
from verl_lite.engine.config.train import CheckpointConfig, ModelConfig
from verl_lite.plugins.config_file import ConfigModel

METRICS = (
    *("held_out/accuracy", "held_out/margin", "held_out/chosen", "held_out/rejected", "held_out/loss"),
    *("held_out/calibration_error", "train/accuracy", "train/margin", "train/chosen", "train/rejected"),
    *("train/loss", "train/grad_norm", "train/learning_rate"),
)


class PreferenceSource(ConfigModel):
    """Where preferences come from: files as in data.train.path of `train`, or a data set of the hub.

    A row has `completions` and `ranks`, as `verl-lite preferences collect` writes them, or `chosen` and
    `rejected`. `prompt` names the column with the prompt; "" for pairs of conversations.
    """

    path: str | tuple[str, ...] | None = None
    hub: str | None = None
    hub_subset: str | None = None
    split: str = "train"
    prompt: str = "prompt"
    system_prompt: str = ""
    num_rows: NonNegativeInt = 0

    @property
    def dataset(self) -> DatasetConfig:
        """As a DatasetConfig. Raises its ValueErrors."""
        return DatasetConfig(reference="", **self.model_dump())

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("expected exactly one of 'path' (files) and 'hub'")
        return self


class PreferenceDataConfig(ChatConfig):
    """`held_out` is never trained on; without it, `held_out_fraction` of the prompts is held out.

    max_tokens   limit for prompt plus completion
    overlong     how to treat longer rows
    pairs        the pairs to compare in a ranking of more than two
    """

    train: PreferenceSource
    held_out: PreferenceSource | None = None
    held_out_fraction: float = Field(default=0.1, ge=0, lt=1)
    max_tokens: PositiveInt = 1024
    overlong: Literal["error", "drop"] = "error"
    pairs: Literal["all", "adjacent", "best_worst"] = "all"


class PreferenceConfig(ConfigModel):
    """What DPO and reward models share. `steps: 0` trains for `epochs`; a batch has `batch_rows` rows.

    --resume continues from `checkpoints`. `deterministic` and `trackers` mean the same as `deterministic`
    and `logging.trackers` of `train`.
    """

    name: str = Field(default="preferences", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: NonNegativeInt = 0
    deterministic: bool = False
    epochs: PositiveInt = 1
    steps: NonNegativeInt = 0
    batch_rows: PositiveInt = 64
    model: ModelConfig
    data: PreferenceDataConfig
    learner: LearnerConfig = LearnerConfig(optimizer=OptimizerConfig(learning_rate=1e-6, warmup_steps=10))
    evaluate_every_steps: NonNegativeInt = 0
    checkpoints: CheckpointConfig = CheckpointConfig()
    trackers: tuple[str, ...] = ("tensorboard",)

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
    """Direct preference optimisation.

    loss                sigmoid (the paper's), robust, ipo, hinge: see docs/preferences.md
    beta                strength of the pull towards the reference (ipo: its tau)
    label_smoothing     the assumed fraction of wrong labels (sigmoid and robust)
    length_normalised   divide each log-ratio by its number of tokens before the loss
    reference           a model folder or hub id; unset: the policy before training
    """

    name: str = Field(default="dpo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    loss: Literal["sigmoid", "robust", "ipo", "hinge"] = "sigmoid"
    beta: PositiveFloat = 0.1
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    length_normalised: bool = False
    reference: str | None = None

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.label_smoothing and self.loss in ("ipo", "hinge"):
            raise ValueError(
                f"label_smoothing={self.label_smoothing} has no meaning for loss={self.loss}: "
                "use sigmoid or robust, or set it to 0"
            )
        return self


class RewardModelConfig(PreferenceConfig):
    """A sequence-classification model that scores completions.

    loss           bradley_terry compares pairs, plackett_luce rankings
    margin_scale   factor on the row's `margin` (or difference of `scores`) that chosen must lead by
    centring       weight of the term that pulls a ranking's mean score to 0 (0.01 is usual)
    """

    name: str = Field(default="reward-model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    loss: Literal["bradley_terry", "plackett_luce"] = "bradley_terry"
    margin_scale: float = Field(default=0.0, ge=0)
    centring: float = Field(default=0.01, ge=0)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.margin_scale and self.loss == "plackett_luce":
            raise ValueError("margin_scale needs loss: bradley_terry (a ranking has no margins)")
        return self
