"""Rewards for answers that are compared as text: `exact`."""

from pydantic import BaseModel, ConfigDict

from verl_lite.plugins.contract import Register, hookimpl, reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome


class ExactOptions(BaseModel):
    """How texts are made alike before they are compared.

    `answer_tag`: compare only what stands in the last complete <tag>...</tag>; "" for everything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ignore_case: bool = False
    ignore_whitespace: bool = True
    answer_tag: str = ""


@reward("exact", options=ExactOptions, isolate=False, cache=False)
def exact(rollout: Rollout, options: ExactOptions) -> Score:
    """1.0 when the completion is the reference, else 0.0; abstains where there is no reference."""
    if rollout.reference is None:
        return Score.failed(ScoreOutcome.ABSTAIN, "the rollout has no reference")
    answer: str | None = rollout.completion
    if options.answer_tag:
        answer = _tagged(rollout.completion, options.answer_tag)
        if answer is None:
            return Score(0.0, reason=f"there is no <{options.answer_tag}>...</{options.answer_tag}>")
    found, expected = _normalised(answer or "", options), _normalised(rollout.reference, options)
    if found == expected:
        return Score(1.0)
    return Score(0.0, reason=f"expected {expected[:80]!r}, got {found[:80]!r}")


def _tagged(text: str, tag: str) -> str | None:
    opening, closing = f"<{tag}>", f"</{tag}>"
    end = text.rfind(closing)
    start = text.rfind(opening, 0, end) if end >= 0 else -1
    return text[start + len(opening) : end] if start >= 0 else None


def _normalised(text: str, options: ExactOptions) -> str:
    if options.ignore_whitespace:
        text = " ".join(text.split())
    return text.casefold() if options.ignore_case else text


@hookimpl
def register_rewards(register: Register) -> None:
    register(exact)
