"""The `sft` section of the config: rows, mask, loss, schedule, mixture and validation."""

import re
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from verl_lite.engine.config.algorithm import LoraConfig, OptimizerConfig, check_dropout
from verl_lite.engine.config.data import DatasetConfig
from verl_lite.plugins.composite.schedule import Weight, weights_of
from verl_lite.plugins.config_file import ConfigModel


class SFTRowsConfig(ConfigModel):
    """The form of a row: prompt and answer, a chat, or plain text.

    answer     the column with the answer to the data set's prompt
    messages   the column with a chat; if set, used instead of prompt and answer
    text       the column with plain text, trained on in full (pre-training text in a mixture)
    tools      the column with the tools for the chat template (a list, or a list as JSON text)
    train_on   "all" assistant turns of a chat, or the "last"
    """

    answer: str = "answer"
    messages: str = ""
    text: str = ""
    tools: str = ""
    train_on: Literal["all", "last"] = "all"

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.messages and self.text:
            raise ValueError(f"messages={self.messages!r} and text={self.text!r}: a row is one or the other")
        return self


class SFTSourceConfig(SFTRowsConfig):
    """One source of a mixture. `decay_weight` replaces `weight` in the decay phase of the wsd schedule."""

    data: DatasetConfig
    weight: NonNegativeFloat = 1.0
    decay_weight: NonNegativeFloat | None = None

    def weight_in(self, phase: str) -> float:
        """Its weight in the phase "weight" or "decay_weight"."""
        if phase == "decay_weight" and self.decay_weight is not None:
            return self.decay_weight
        return self.weight


class DemonstrationsConfig(SFTRowsConfig):
    """A supervised term in every RL step: cross-entropy on the answers of rows.

    data           rows to use instead of data.train; rollout records, with answer: completion, are rows too
    rows_per_step  rows beside the rollouts of each step
    weight         of their mean loss per token; may follow a schedule
    """

    data: DatasetConfig | None = None
    rows_per_step: PositiveInt = 16
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _not_negative(self) -> Self:
        if min(weights_of(self.weight)) < 0:
            raise ValueError(f"demonstrations.weight={self.weight}: expected at least 0")
        return self


class SpanWeight(ConfigModel):
    """The loss weight of answer tokens inside <tag>...</tag>, or matched by `pattern`."""

    tag: str = ""
    pattern: str = ""
    weight: NonNegativeFloat

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if bool(self.tag) == bool(self.pattern):
            raise ValueError("expected exactly one of 'tag' and 'pattern'")
        try:
            self.compiled()
        except re.error as error:
            raise ValueError(f"pattern={self.pattern!r} is not a regular expression: {error}") from None
        return self

    def compiled(self) -> re.Pattern[str]:
        tag = re.escape(self.tag)
        return re.compile(f"<{tag}>.*?</{tag}>" if tag else self.pattern, re.DOTALL)


class SFTLossConfig(ConfigModel):
    """How the tokens' negative log-likelihoods are aggregated.

    kind    token_mean     the mean over all trained tokens of the batch (standard cross-entropy)
            row_mean       the mean of the rows' means: long answers weigh as much as short ones
            sequence       the mean of the rows' sums: -log p of the answers
    spans   token weights; the last matching rule wins, and tokens without a match weigh 1
    """

    kind: Literal["token_mean", "row_mean", "sequence"] = "token_mean"
    spans: tuple[SpanWeight, ...] = ()


class SFTValidationConfig(ConfigModel):
    """Validation every `every_steps` steps of SFT (0: only at the end), on rows never trained on.

    data         the rows, in the form of the training rows; or hold out `fraction` of the training rows
    samples      number of greedy answers to generate and score with the rewards of the config
    format       the reward whose mean is the format compliance; unset: the one named "format"
    min_format   the lowest format compliance at the end with which SFT succeeds
    patience     stop after this many measurements without a better validation loss (0: never), and
                 return to the best weights
    """

    data: DatasetConfig | None = None
    fraction: float = Field(default=0.0, ge=0, lt=1)
    every_steps: NonNegativeInt = 50
    samples: NonNegativeInt = 4
    max_new_tokens: NonNegativeInt = 0
    format: str = ""
    min_format: float = Field(default=0.0, ge=0, le=1)
    patience: NonNegativeInt = 0

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.data is None) == (self.fraction == 0.0):
            raise ValueError("expected exactly one of 'data' and a 'fraction' above 0 of the training rows")
        if self.min_format and not self.samples:
            raise ValueError(f"min_format={self.min_format} is measured on generated answers, but samples=0")
        if self.patience and not self.every_steps:
            raise ValueError(f"patience={self.patience} counts measurements; every_steps=0 makes one")
        return self


class SFTConfig(SFTRowsConfig):
    """The supervised warm-up: only answers are trained on. `steps: 0` and `epochs: 0` skip it.

    data         rows to use instead of data.train
    mixture      several sources by name, instead of `data`
    batch_rows   rows per update; micro-batches follow learner.max_tokens_per_micro_batch
    mask         "checked": the template's {% generation %} marks, if any, must agree with its generation
                 prompt; "template" trusts the marks; "prompt" ignores them
    end_of_turn  tokens that end a turn besides those of the tokenizer, generation_config.json and the chat
                 template; where the template writes none, the first of them is written behind each answer
    without_reasoning
                 an answer without reasoning where the template's generation prompt opens some (<think>) is
                 an error, or "close": the model learns to close the empty block first
    lora         train adapters, merged into the weights at the end
    dropout      train with the dropout of the model's config and of sft.lora.dropout
    """

    steps: NonNegativeInt = 0
    epochs: NonNegativeFloat = 0.0
    data: DatasetConfig | None = None
    mixture: dict[str, SFTSourceConfig] = Field(default_factory=dict)
    batch_rows: PositiveInt = 64
    mask: Literal["checked", "template", "prompt"] = "checked"
    end_of_turn: tuple[str, ...] = ()
    without_reasoning: Literal["error", "close"] = "error"
    max_tokens: PositiveInt | None = None  # per row; unset: rollout prompt + completion
    loss: SFTLossConfig = Field(default_factory=SFTLossConfig)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-5, warmup_steps=10)
    lora: LoraConfig | None = None
    dropout: bool = False
    validation: SFTValidationConfig | None = None

    @property
    def is_on(self) -> bool:
        return self.steps > 0 or self.epochs > 0

    def num_steps(self, num_rows: int) -> int:
        """Number of updates. `epochs` counts passes over the rows; the next pass completes the last batch."""
        return self.steps or max(-(-round(self.epochs * num_rows) // self.batch_rows), 1)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.steps and self.epochs:
            raise ValueError(f"steps={self.steps} and epochs={self.epochs}: set one of them")
        if self.lora is not None and self.lora.quantize:
            raise ValueError("sft.lora.quantize: SFT merges its adapters, which needs whole weights")
        check_dropout(self.lora, dropout=self.dropout)
        if self.mixture:
            self._check_mixture()
        return self

    def _check_mixture(self) -> None:
        if self.data is not None:
            raise ValueError("expected one of 'data' and 'mixture', got both: put data into the mixture")
        if self.epochs:
            raise ValueError(f"epochs={self.epochs}: sources of a mixture end at different times; set steps")
        decay = [source.decay_weight for source in self.mixture.values()]
        if any(weight is not None for weight in decay) and self.optimizer.schedule != "wsd":
            raise ValueError(
                f"decay_weight needs the decay phase of schedule: wsd; it is {self.optimizer.schedule!r}"
            )
        for phase in ("weight", "decay_weight"):
            if not any(source.weight_in(phase) for source in self.mixture.values()):
                raise ValueError(f"the {phase}s of the mixture are all 0")
