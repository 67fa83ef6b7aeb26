"""A trained reward model: `reward_model` (a sequence-classification model of transformers)."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from verl_lite.errors import ConfigError
from verl_lite.plugins.builtin.scoring_model import Chat, ModelOptions, ScoringModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome


class RewardModelOptions(ModelOptions):
    """A model with a sequence-classification head, such as those that `verl-lite reward-model` trains."""

    label: int = Field(default=0, ge=0, description="the head's output that is the reward")
    transform: Literal["none", "sigmoid", "softmax"] = Field(
        default="none",
        description="none: the raw output; sigmoid: of that output; softmax: its share among all outputs",
    )
    chat_template: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="auto: format prompt and completion with the tokenizer's template if it has one, "
        "else join them",
    )
    on_truncation: Literal["score", "abstain"] = Field(
        default="score",
        description="score: cut the beginning of a text over max_tokens and say so in reason and details; "
        "abstain: give it no value",
    )


@reward(
    "reward_model", options=RewardModelOptions, form="batch", isolate=False, timeout_s=600.0, max_batch=256
)
class RewardModel:
    """The output of a sequence-classification model for prompt and completion."""

    def __init__(self, options: RewardModelOptions) -> None:
        self._options = options
        self._model = ScoringModel(options, "SequenceClassification")
        has_template = getattr(self._model.tokenizer, "chat_template", None) is not None
        if options.chat_template == "always" and not has_template:
            raise ConfigError(f"chat_template=always, but the tokenizer of {options.model!r} has none")
        self._use_template = has_template and options.chat_template != "never"
        if options.label >= self._model.num_labels:
            raise ConfigError(
                f"label={options.label}, but {options.model!r} has {self._model.num_labels} outputs"
            )
        if options.transform == "softmax" and self._model.num_labels == 1:
            raise ConfigError(
                f"transform=softmax, but {options.model!r} has one output: the share is always 1"
            )

    def __call__(self, rollouts: Sequence[Rollout]) -> list[Score]:
        chats = [self._model.chat(rollout, use_template=self._use_template) for rollout in rollouts]
        wanted = [at for at, chat in enumerate(chats) if self._refusal(chat) is None]
        values = self._model.run([chats[at].ids for at in wanted], self._value)
        found = dict(zip(wanted, values, strict=True))
        return [self._score(chat, found.get(at)) for at, chat in enumerate(chats)]

    def _value(self, row: int, logits: Any) -> float:
        if self._options.transform == "softmax":
            logits = logits.softmax(-1)
        elif self._options.transform == "sigmoid":
            logits = logits.sigmoid()
        return float(logits[self._options.label])

    def _refusal(self, chat: Chat) -> str | None:
        if not chat.ids:
            return "there is no text to score"
        return self._cut(chat) if chat.num_cut_tokens and self._options.on_truncation == "abstain" else None

    def _cut(self, chat: Chat) -> str:
        return f"truncated: the first {chat.num_cut_tokens} tokens were cut off to fit max_tokens"

    def _score(self, chat: Chat, value: float | None) -> Score:
        details = {
            "tokens": len(chat.ids),
            "truncated_tokens": chat.num_cut_tokens,
            "special_tokens_removed": chat.num_special_tokens,
        }
        if value is None:
            return Score.failed(ScoreOutcome.ABSTAIN, self._refusal(chat) or "", **details)
        if not math.isfinite(value):
            return Score.failed(ScoreOutcome.ERROR, f"the model's output is {value}", **details)
        return Score(value, reason=self._cut(chat) if chat.num_cut_tokens else "", details=details)
