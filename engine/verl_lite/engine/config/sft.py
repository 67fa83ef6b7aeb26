"""The `sft` section of the config: rows, mask, loss, schedule, mixture and validation."""

import re
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from verl_lite.engine.config.data import DatasetConfig
from verl_lite.engine.config.learner import LoraConfig, OptimizerConfig, check_dropout
from verl_lite.plugins.composite.schedule import Weight, weights_of
from verl_lite.plugins.config_file import ConfigModel


class SFTRowsConfig(ConfigModel):
    """The form of a row: prompt and answer, a chat, or plain text."""

    answer: str = "answer"
    """The column with the answer to the data set's prompt."""
    messages: str = ""
    """The column with a whole chat; if set, used instead of prompt and answer."""
    text: str = ""
    """The column with plain text, trained on in full (pre-training text in a mixture)."""
    tools: str = ""
    """The column with the tools for the chat template: a list, or a list as JSON text."""
    train_on: Literal["all", "last"] = "all"
    """Which assistant turns of a chat are trained on."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.messages and self.text:
            raise ValueError(f"messages={self.messages!r} and text={self.text!r}: a row is one or the other")
        return self


class SFTSourceConfig(SFTRowsConfig):
    """One source of a mixture. `decay_weight` replaces `weight` in the decay phase of the wsd schedule."""

    data: DatasetConfig
    """The source's rows."""
    weight: NonNegativeFloat = 1.0
    """Its share of the rows of every batch, relative to the others'."""
    decay_weight: NonNegativeFloat | None = None
    """Replaces `weight` in the decay phase of schedule: wsd. Unset: the same."""

    def weight_in(self, phase: str) -> float:
        """Its weight in the phase "weight" or "decay_weight"."""
        if phase == "decay_weight" and self.decay_weight is not None:
            return self.decay_weight
        return self.weight


class RowsPerStepConfig(ConfigModel):
    """Rows that every RL step learns from beside its rollouts."""

    rows_per_step: PositiveInt = 16
    """Rows beside the rollouts of each step."""
    weight: Weight = 1.0
    """Weight of their mean loss per token; constant or a schedule over steps."""

    @model_validator(mode="after")
    def _not_negative(self) -> Self:
        if min(weights_of(self.weight)) < 0:
            raise ValueError(f"weight={self.weight}: expected at least 0")
        return self


class DemonstrationsConfig(SFTRowsConfig, RowsPerStepConfig):
    """A supervised term in every RL step: cross-entropy on the answers of rows."""

    data: DatasetConfig | None = None
    """Rows to use instead of data.train; rollout records, with answer: completion, are rows too."""


class SpanWeight(ConfigModel):
    """The loss weight of answer tokens inside <tag>...</tag>, or matched by `pattern`."""

    tag: str = ""
    """The rule matches tokens inside <tag>...</tag>."""
    pattern: str = ""
    """The rule matches tokens that this regular expression matches; instead of `tag`."""
    weight: NonNegativeFloat
    """The loss weight of the matched tokens; tokens without a match weigh 1."""

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
    """How the tokens' negative log-likelihoods are aggregated."""

    kind: Literal["token_mean", "row_mean", "sequence"] = "token_mean"
    """token_mean: the mean over all trained tokens of the batch. row_mean: the mean of the rows' means, so
    that long answers weigh as much as short ones. sequence: the mean of the rows' sums."""
    spans: tuple[SpanWeight, ...] = ()
    """Token weights by rule; the last matching rule wins."""


class SFTValidationConfig(ConfigModel):
    """Validation every `every_steps` steps of SFT (0: only at the end), on rows never trained on."""

    data: DatasetConfig | None = None
    """Rows to validate on, in the form of the training rows; instead of `fraction`."""
    fraction: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the training rows to hold out for validation."""
    every_steps: NonNegativeInt = 50
    """Steps between validations; 0: only at the end."""
    samples: NonNegativeInt = 4
    """Number of greedy answers to generate and score with the rewards of the config."""
    max_new_tokens: NonNegativeInt = 0
    """Longest generated answer in tokens; 0: rollout.max_new_tokens."""
    format: str = ""
    """The reward whose mean is the format compliance; unset: the one named "format"."""
    min_format: float = Field(default=0.0, ge=0, le=1)
    """The lowest format compliance at the end with which SFT succeeds; below it the run stops."""
    patience: NonNegativeInt = 0
    """Stop after this many validations without a better loss and return to the best weights; 0: never."""

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
    """The supervised warm-up: only answers are trained on. `steps: 0` and `epochs: 0` skip it."""

    steps: NonNegativeInt = 0
    """Number of updates; 0 with epochs 0 skips SFT."""
    epochs: NonNegativeFloat = 0.0
    """Passes over the rows, instead of `steps`."""
    data: DatasetConfig | None = None
    """Rows to use instead of data.train."""
    mixture: dict[str, SFTSourceConfig] = Field(default_factory=dict)
    """Several sources by name, instead of `data`."""
    batch_rows: PositiveInt = 64
    """Rows per update; micro-batches follow learner.max_tokens_per_micro_batch."""
    mask: Literal["checked", "template", "prompt"] = "checked"
    """checked: the template's {% generation %} marks, if any, must agree with its generation prompt. template
    trusts the marks, prompt ignores them."""
    end_of_turn: tuple[str, ...] = ()
    """Tokens that end a turn besides those of the tokenizer, generation_config.json and the template; where
    the template writes none, the first of them is written behind each answer."""
    without_reasoning: Literal["error", "close"] = "error"
    """What an answer without reasoning is where the template's generation prompt opens some (<think>): an
    error, or the model learns to close the empty block first."""
    max_tokens: PositiveInt | None = None
    """Longest row in tokens; longer ones are refused. Unset: rollout prompt and completion together."""
    loss: SFTLossConfig = Field(default_factory=SFTLossConfig)
    """How the tokens' losses are weighed and averaged."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-5, warmup_steps=10)
    """The optimiser of SFT, apart from RL's."""
    lora: LoraConfig | None = None
    """Train adapters, merged into the weights at the end."""
    dropout: bool = False
    """Train with the dropout of the model's config and of sft.lora.dropout."""
    validation: SFTValidationConfig | None = None
    """Validation on rows never trained on; unset: none."""

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
