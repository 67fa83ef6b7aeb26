"""The reward `math`: is the answer in the completion the reference?"""

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Literal

from pydantic import Field

from verl_lite.plugins.builtin.second_stage import (
    Question,
    SecondStage,
    SecondStageOptions,
    model_score,
    second_stage,
)
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.verifiers import MathOptions, Outcome, Verdict, is_text_reference, verify_math_batch


class MathRewardOptions(ConfigModel):
    """The options of `verify_math`, and what each outcome is worth."""

    mode: Literal["lenient", "strict"] = "lenient"
    """strict reads a box, ####, <answer> or an answer phrase; lenient also a bare final expression."""
    timeout_s: float = Field(default=5.0, gt=0)
    """Deadline per pair of answer and reference, in seconds."""
    rel_tol: float = Field(default=1e-6, ge=0, lt=1)
    """How far a decimal may be from the exact reference, relative to the reference."""
    rounding: Literal["reference", "exact"] = "reference"
    """reference: a decimal reference of three or more significant digits is a rounding, and a more precise
    answer that rounds to it is right. exact: only rel_tol counts."""
    units: Literal["convert", "require", "strip"] = "convert"
    """convert: where both sides name a unit they must agree after conversion; if only one does, it is
    implied. require: the reference's unit must be given. strip: units are ignored."""
    unparsed: float | None = 0.0
    """The value if no answer can be read; null for no value."""
    wrong: float = 0.0
    """The value of a wrong answer."""
    partial: float = Field(default=0.0, ge=0, lt=1)
    """Credit for a reference of several parts (a list, set, tuple or vector), by the share of parts that are
    right: 0 for none, 0.5 for at most half of full marks."""
    decimal_comma: bool = False
    """Read 3,5 as three and a half."""
    unclosed_thinking: Literal["refuse", "read"] = "refuse"
    """What a completion is whose thinking was never closed: without an answer, or read all the same."""
    computed: bool = False
    """Refuse an answer that leaves arithmetic to do, such as 70 + 59 for 129."""
    second_stage: SecondStageOptions | None = None
    """A learned verifier for references that are text."""

    def verifier_options(self) -> MathOptions:
        shared = {one.name: getattr(self, one.name) for one in fields(MathOptions)}
        return MathOptions(**{**shared, "partial": self.partial > 0})


# Not isolated: verify_math runs whatever can hang in its own killable processes, with its own deadline.
# The call's deadline leaves time to start them on a busy machine.
@reward("math", options=MathRewardOptions, form="batch", isolate=False, timeout_s=60.0, max_batch=256)
def math_reward(rollouts: Sequence[Rollout], options: MathRewardOptions) -> list[Score]:
    """1.0 when the completion's answer is the reference or one of several, in any notation, else 0.0."""
    accepted = [rollout.references for rollout in rollouts]
    pairs = [
        (rollout.completion, reference)
        for rollout, references in zip(rollouts, accepted, strict=True)
        for reference in references
    ]
    verdicts = iter(verify_math_batch(pairs, options=options.verifier_options()))
    best = [min(islice(verdicts, len(references)), key=_rank, default=None) for references in accepted]
    scores = [_MISSING if verdict is None else _score(verdict, options) for verdict in best]
    if options.second_stage is not None:
        _ask_second_stage(second_stage(options.second_stage), accepted, best, scores, options)
    return scores


_MISSING = Score.failed(ScoreOutcome.ABSTAIN, "the rollout has no reference")
_RANKS = ("correct", "timeout", "error", "wrong", "unparsed", "bad_reference")


def _rank(verdict: Verdict) -> tuple[int, float]:
    """Of the verdicts for several accepted references, the first of these counts."""
    return _RANKS.index(verdict.outcome), -verdict.credit


def _ask_second_stage(
    stage: SecondStage,
    accepted: Sequence[Sequence[str]],
    verdicts: Sequence[Verdict | None],
    scores: list[Score],
    options: MathRewardOptions,
) -> None:
    """Replace the scores of rows that the rules refused although their reference is text."""
    allowed = stage.allowance(len(scores))
    wanted = [
        (at, Question(" OR ".join(accepted[at]), verdict.extracted))
        for at, verdict in enumerate(verdicts)
        if verdict is not None
        and verdict.outcome in (Outcome.WRONG, Outcome.UNPARSED)
        and verdict.extracted
        and all(map(is_text_reference, accepted[at]))
    ]
    rulings = stage.rule([question for _, question in wanted], at_most=allowed)
    for (at, _), ruling in zip(wanted, rulings, strict=True):
        details = dict(scores[at].details)
        if ruling is None:
            scores[at] = replace(scores[at], details={**details, "second_stage": "not asked"})
        else:
            scores[at] = model_score(ruling, wrong=options.wrong, details=details)


def _score(verdict: Verdict, options: MathRewardOptions) -> Score:
    details = {
        "verdict": verdict.outcome.value,
        "extracted": verdict.extracted,
        "matched_by": verdict.matched_by,
    }
    if verdict.outcome is Outcome.CORRECT:
        return Score(1.0, reason=verdict.reason, details=details)
    if verdict.outcome is Outcome.WRONG:
        value = max(options.wrong, options.partial * verdict.credit)
        return Score(value, reason=verdict.reason, details=details)
    if verdict.outcome is Outcome.UNPARSED:
        reason = f"unparsed: {verdict.reason}"
        if options.unparsed is None:
            return Score.failed(ScoreOutcome.ABSTAIN, reason, **details)
        return Score(options.unparsed, reason=reason, details=details)
    failed = ScoreOutcome.TIMEOUT if verdict.outcome is Outcome.TIMEOUT else ScoreOutcome.ERROR
    return Score.failed(failed, f"{verdict.outcome.value}: {verdict.reason}", **details)
