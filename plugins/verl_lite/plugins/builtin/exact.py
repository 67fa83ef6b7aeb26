"""Rewards for answers that are compared as text: `exact`."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
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
from verl_lite.verifiers import find_tagged, is_text_reference


class ExactOptions(ConfigModel):
    """Which part of the completion is compared, and how texts are normalised first."""

    ignore_case: bool = Field(default=False, description="ignore case")
    ignore_whitespace: bool = Field(
        default=True, description="treat runs of white space as one space, and strip the ends"
    )
    ignore_punctuation: bool = Field(default=False, description="drop all punctuation")
    unicode: Literal["nfc", "nfkc", "none"] = Field(
        default="nfc",
        description="nfc: one form for characters that look the same; nfkc: also for those that mean the "
        "same (full-width digits, ligatures, superscripts); none: code points as they are",
    )
    answer_tag: str = Field(
        default="",
        description="compare only the content of the last complete <tag>...</tag>; empty for everything",
    )
    second_stage: SecondStageOptions | None = Field(
        default=None, description="a learned verifier for references that are text; none without it"
    )
    only_answer: bool = Field(
        default=False, description="0.0 if <tag>...</tag> occurs more than once, whatever its content"
    )


def answer_in(text: str, tag: str, *, only: bool = False) -> str | Score:
    """The content of the last <tag>...</tag>, or all of `text` if `tag` is empty; the score if it is missing.

    `only`: several of them are no answer.
    """
    if not tag:
        return text
    marks = find_tagged(text, tag)
    if not marks:
        return Score(0.0, reason=f"there is no <{tag}>...</{tag}>")
    if only and len(marks) > 1:
        return Score(0.0, reason=f"{len(marks)} times <{tag}>, expected one answer")
    return marks[-1].content


@reward("exact", options=ExactOptions, isolate=False, cache=False)
def exact_reward(rollout: Rollout, options: ExactOptions) -> Score:
    """1.0 when the completion is the reference, or one of several, else 0.0; abstains without one."""
    references = rollout.references
    if not references:
        return Score.failed(ScoreOutcome.ABSTAIN, "the rollout has no reference")
    answer = answer_in(rollout.completion, options.answer_tag, only=options.only_answer)
    if isinstance(answer, Score):
        return answer
    found = _normalised(answer, options)
    expected = [_normalised(reference, options) for reference in references]
    if found in expected:
        return Score(1.0)
    wanted = " or ".join(repr(one[:80]) for one in expected[:5])
    score = Score(0.0, reason=f"expected {wanted}, got {found[:80]!r}")
    if options.second_stage is None:
        return score
    return _second_opinion(second_stage(options.second_stage), references, answer, score)


def _second_opinion(stage: SecondStage, references: Sequence[str], answer: str, score: Score) -> Score:
    allowed = stage.allowance(1)
    if not answer.strip() or not all(map(is_text_reference, references)):
        return score
    (ruling,) = stage.rule([Question(" OR ".join(references), answer.strip())], at_most=allowed)
    if ruling is None:
        return replace(score, details={"second_stage": "not asked"})
    return model_score(ruling, wrong=0.0, details={})


def _normalised(text: str, options: ExactOptions) -> str:
    if options.unicode != "none" and not text.isascii():
        text = unicodedata.normalize("NFC" if options.unicode == "nfc" else "NFKC", text)
    if options.ignore_punctuation:
        text = "".join(char for char in text if not unicodedata.category(char).startswith("P"))
    if options.ignore_whitespace:
        text = " ".join(text.split())
    return text.casefold() if options.ignore_case else text
