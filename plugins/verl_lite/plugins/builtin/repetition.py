"""Rewards against loops: `repetition` (n-grams that came before)."""

import re
from collections.abc import Hashable, Iterator, Sequence
from typing import Literal

from pydantic import Field, model_validator

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome, StepScore

_WORD = re.compile(r"\S+")


class RepetitionOptions(ConfigModel):
    """An n-gram is a repeat if it occurred earlier in the same completion (arXiv:2502.03373)."""

    ngram: int = Field(default=20, ge=1, le=200, description="n: the number of consecutive units")
    unit: Literal["tokens", "words", "characters"] = Field(
        default="words",
        description="what is counted; words ignore case, and tokens need the rollout's `completion_ids`",
    )
    penalty: float = Field(
        default=-1.0, le=0, allow_inf_nan=False, description="0 or below: the value of full repetition"
    )
    spread: Literal["completion", "units"] = Field(
        default="completion",
        description="completion: one value, `penalty` times the share of n-grams that are repeats; "
        "units: a process reward, `penalty` on every token or word that is part of a repeat, and 0.0 "
        "for the whole",
    )

    @model_validator(mode="after")
    def _units_have_tokens(self) -> "RepetitionOptions":
        if self.spread == "units" and self.unit == "characters":
            raise ValueError("spread units needs unit tokens or words: one token may hold many characters")
        return self


@reward("repetition", options=RepetitionOptions, isolate=False, cache=False)
def repetition_reward(rollout: Rollout, options: RepetitionOptions) -> Score:
    """0.0 without repeated n-grams, down to `penalty` for only repeats."""
    if options.unit == "tokens" and not rollout.completion_ids and rollout.completion:
        return Score.failed(
            ScoreOutcome.ABSTAIN, "the rollout has no token ids: use unit words or characters"
        )
    units = _units(rollout, options.unit)
    repeats = list(_repeats(units, options.ngram))
    total = max(len(units) - options.ngram + 1, 0)
    share = len(repeats) / total if total else 0.0
    details = {"ngrams": total, "repeated": len(repeats)}
    reason = (
        f"{len(repeats)} of {total} {options.ngram}-grams of {options.unit} are repeats" if repeats else ""
    )
    if options.spread == "completion":
        return Score(options.penalty * share if repeats else 0.0, reason=reason, details=details)
    return Score(0.0, reason=reason, details=details, steps=tuple(_steps(rollout, repeats, options)))


def _units(rollout: Rollout, unit: str) -> Sequence[Hashable]:
    if unit == "tokens":
        return tuple(rollout.completion_ids)
    return rollout.completion if unit == "characters" else tuple(rollout.completion.lower().split())


def _repeats(units: Sequence[Hashable], n: int) -> Iterator[int]:
    """The start of every n-gram that occurred earlier; occurrences may overlap."""
    seen: set[Sequence[Hashable]] = set()
    for start in range(len(units) - n + 1):
        ngram = units[start : start + n]
        if ngram in seen:
            yield start
        else:
            seen.add(ngram)


def _steps(rollout: Rollout, repeats: Sequence[int], options: RepetitionOptions) -> Iterator[StepScore]:
    if not options.penalty:
        return
    covered = _covered(repeats, options.ngram)
    if options.unit == "tokens":
        yield from (StepScore(at, at + 1, options.penalty, "token") for at in covered)
        return
    wanted = set(covered)
    for at, word in enumerate(_WORD.finditer(rollout.completion)):
        if at in wanted:
            yield StepScore(word.start(), word.end(), options.penalty)


def _covered(repeats: Sequence[int], n: int) -> Iterator[int]:
    """Each position covered by a repeat, once."""
    done = 0
    for start in repeats:
        yield from range(max(start, done), start + n)
        done = start + n
