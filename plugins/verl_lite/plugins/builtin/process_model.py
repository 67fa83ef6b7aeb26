"""A trained process reward model: `process_model` (a token-classification model of transformers)."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from verl_lite.errors import ConfigError
from verl_lite.plugins.builtin.scoring_model import ModelOptions, ScoringModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome, StepScore


class ProcessModelOptions(ModelOptions):
    """The model reads the prompt and the steps, with `step_token` after each step; its label is read there.

    The defaults are the format in which TRL's PRMTrainer (0.24) trains such models.
    """

    step_separator: str = Field(
        default="\n\n", min_length=1, description="what separates the steps of a completion"
    )
    step_token: str = Field(
        default="\n",
        min_length=1,
        description="what follows each step in the model's input; one or more tokens",
    )
    prompt_separator: str = Field(default="", description="what separates the prompt from the first step")
    label: int = Field(default=1, ge=0, description="the head's output for a good step")
    scale: float = Field(
        default=1.0,
        allow_inf_nan=False,
        description="a step's value is scale * p + offset, with p the probability that it is good",
    )
    offset: float = Field(default=0.0, allow_inf_nan=False, description="see scale")
    value: Literal["none", "min", "mean", "product", "last"] = Field(
        default="none", description="the value of the whole completion: 0.0, or the steps' p combined"
    )


@dataclass(frozen=True, slots=True)
class _Steps:
    """`spans` are characters of the completion; `reads` is the token at which each step's label is read."""

    ids: Sequence[int]
    spans: Sequence[tuple[int, int]]
    reads: Sequence[int]


@reward(
    "process_model", options=ProcessModelOptions, form="batch", isolate=False, timeout_s=600.0, max_batch=256
)
class ProcessModel:
    """A value for every step of the completion, from a token-classification model."""

    def __init__(self, options: ProcessModelOptions) -> None:
        self._options = options
        self._model = ScoringModel(options, "TokenClassification")
        if not options.label < self._model.num_labels or self._model.num_labels < 2:
            raise ConfigError(
                f"label={options.label}, but {options.model!r} has {self._model.num_labels} outputs: "
                "a process model has at least two, and label is one of them"
            )
        self._step_ids = self._model.token_ids(options.step_token)

    def __call__(self, rollouts: Sequence[Rollout]) -> list[Score]:
        found = [self._steps(rollout) for rollout in rollouts]
        limit = self._options.max_tokens
        wanted = [at for at, steps in enumerate(found) if steps.reads and len(steps.ids) <= limit]

        def read(row: int, logits: Any) -> list[float]:
            chances = logits.softmax(-1)[:, self._options.label]
            return [float(chances[at]) for at in found[wanted[row]].reads]

        values = dict(zip(wanted, self._model.run([found[at].ids for at in wanted], read), strict=True))
        return [self._score(steps, values.get(at)) for at, steps in enumerate(found)]

    def _steps(self, rollout: Rollout) -> _Steps:
        """The model's input; each step is tokenised separately, so the place of its label is known."""
        prompt, _ = self._model.without_special_tokens(rollout.prompt_text)
        begin = self._model.tokenizer.bos_token_id
        ids = [] if begin is None else [begin]
        if prompt:
            ids += self._model.token_ids(prompt + self._options.prompt_separator)
        spans, reads = [], []
        for start, end in _step_spans(rollout.completion, self._options.step_separator):
            step, _ = self._model.without_special_tokens(rollout.completion[start:end])
            ids += [*self._model.token_ids(step), *self._step_ids]
            spans.append((start, end))
            reads.append(len(ids) - 1)
        return _Steps(ids, spans, reads)

    def _score(self, steps: _Steps, chances: Sequence[float] | None) -> Score:
        options = self._options
        if not steps.reads:
            return Score.failed(ScoreOutcome.ABSTAIN, "the completion has no steps")
        if chances is None:
            reason = f"{len(steps.ids)} tokens, more than max_tokens={options.max_tokens}: not scored"
            return Score.failed(ScoreOutcome.ABSTAIN, reason, tokens=len(steps.ids))
        if not all(math.isfinite(chance) for chance in chances):
            return Score.failed(ScoreOutcome.ERROR, "the model's output is not finite")
        scores = tuple(
            StepScore(start, end, options.scale * chance + options.offset)
            for (start, end), chance in zip(steps.spans, chances, strict=True)
        )
        details = {"tokens": len(steps.ids), "steps": len(scores)}
        return Score(_together(chances, options.value), details=details, steps=scores)


def _step_spans(text: str, separator: str) -> list[tuple[int, int]]:
    """[start, end) of each step, stripped of white space; empty steps are left out."""
    spans, start = [], 0
    for match in [*re.finditer(re.escape(separator), text), None]:
        end = match.start() if match else len(text)
        body = text[start:end].strip()
        if body:
            begin = start + text[start:end].index(body)
            spans.append((begin, begin + len(body)))
        start = match.end() if match else end
    return spans


def _together(chances: Sequence[float], how: str) -> float:
    if how == "none":
        return 0.0
    if how == "mean":
        return math.fsum(chances) / len(chances)
    if how == "product":
        return math.prod(chances)
    return min(chances) if how == "min" else chances[-1]
