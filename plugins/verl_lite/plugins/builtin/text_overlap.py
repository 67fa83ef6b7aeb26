"""Overlap with reference texts, by libraries: `text_overlap` (ROUGE, BLEU, chrF)."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal

from pydantic import Field, model_validator

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome

Metric = Literal["rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "chrf"]
Measure = Callable[[str, Sequence[str]], float]
MISSING = "this reward needs the packages rouge-score and sacrebleu: pip install 'verl-lite[text]'"


class TextOverlapOptions(ConfigModel):
    """The measure. ROUGE takes the best of several references, BLEU and chrF take all of them."""

    metric: Metric = Field(
        default="rougeL",
        description="rouge*: the F-measure of rouge-score; bleu: sacrebleu's smoothed sentence BLEU; chrf: "
        "sacrebleu's chrF2",
    )
    stem: bool = Field(default=False, description="rouge*: compare word stems (English)")
    max_chars: int = Field(default=100_000, gt=0, description="a longer completion gets 0.0")

    @model_validator(mode="after")
    def _has_its_packages(self) -> "TextOverlapOptions":
        if find_spec("rouge_score") is None or find_spec("sacrebleu") is None:
            raise ValueError(MISSING)
        return self


@reward("text_overlap", options=TextOverlapOptions)  # isolated: ROUGE-L takes the square of the length
class TextOverlap:
    """ROUGE, BLEU or chrF of the completion against the references, 0 to 1; abstains without one."""

    def __init__(self, options: TextOverlapOptions) -> None:
        self._options = options
        self._measure = (_rouge if options.metric.startswith("rouge") else _sacrebleu)(options)

    def __call__(self, rollout: Rollout) -> Score:
        references = rollout.references
        if not references:
            return Score.failed(ScoreOutcome.ABSTAIN, "the rollout has no reference")
        if len(rollout.completion) > self._options.max_chars:
            return Score(0.0, reason=f"more than max_chars={self._options.max_chars} characters")
        return Score(self._measure(rollout.completion, references))


def _rouge(options: TextOverlapOptions) -> Measure:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([options.metric], use_stemmer=options.stem)
    return lambda text, references: max(
        float(scorer.score(reference, text)[options.metric].fmeasure) for reference in references
    )


def _sacrebleu(options: TextOverlapOptions) -> Measure:
    from sacrebleu.metrics import BLEU, CHRF

    metric = BLEU(effective_order=True) if options.metric == "bleu" else CHRF()
    return lambda text, references: float(metric.sentence_score(text, list(references)).score) / 100
