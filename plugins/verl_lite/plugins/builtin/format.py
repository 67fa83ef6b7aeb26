"""Rewards for the shape of the completion: `format` (named patterns) and `regex` (one's own)."""

import re
from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from verl_lite.plugins.contract import Register, hookimpl, reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score


class FormatOptions(BaseModel):
    r"""The shape the completion must have.

    boxed         exactly one \boxed{...}, closed, with something in it
    think_answer  <think>reasoning</think> and then <answer>something</answer>, each once, nothing after
    think_boxed   <think>reasoning</think>, then text with exactly one \boxed{...}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: Literal["boxed", "think_answer", "think_boxed"] = "think_answer"


class RegexOptions(BaseModel):
    """A regular expression of Python's `re`; `fullmatch` asks for the whole completion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str = Field(min_length=1)
    fullmatch: bool = True

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern


@reward("format", options=FormatOptions, isolate=False, cache=False)
def format_reward(rollout: Rollout, options: FormatOptions) -> Score:
    """1.0 when the completion has the named shape, else 0.0 with what is missing."""
    problem = _PROBLEMS[options.pattern](rollout.completion.strip())
    return Score(0.0, reason=problem) if problem else Score(1.0)


@reward("regex", options=RegexOptions)  # isolated: a pattern with nested repeats can run for hours
def regex(rollout: Rollout, options: RegexOptions) -> float:
    """1.0 when the completion matches the regular expression, else 0.0. `.` matches line ends too."""
    compiled = _compiled(options.pattern)
    match = compiled.fullmatch if options.fullmatch else compiled.search
    return 1.0 if match(rollout.completion) else 0.0


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


def _boxed_problem(text: str) -> str:
    r"""What keeps `text` from holding exactly one closed, non-empty \boxed{...}; "" if nothing does."""
    count = text.count(r"\boxed{")
    if count != 1:
        return rf"{count} \boxed{{...}}, expected 1"
    start = text.index(r"\boxed{") + len(r"\boxed{")
    depth = 1
    for position in range(start, len(text)):
        depth += (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return "" if text[start:position].strip() else r"the \boxed{} is empty"
    return r"the \boxed{ is not closed"


def _after_think(text: str) -> tuple[str, str]:
    """(the text after the reasoning, "") or ("", what is wrong with the <think> part)."""
    if text.count("<think>") != 1 or text.count("</think>") != 1:
        return "", "expected <think>...</think> exactly once"
    before, _, rest = text.partition("<think>")
    thought, closed, rest = rest.partition("</think>")
    if before.strip() or not closed:
        return "", "expected <think>...</think> at the start"
    return (rest, "") if thought.strip() else ("", "the <think> part is empty")


def _think_answer_problem(text: str) -> str:
    rest, problem = _after_think(text)
    if problem:
        return problem
    rest = rest.strip()
    if rest.count("<answer>") != 1 or rest.count("</answer>") != 1:
        return "expected <answer>...</answer> exactly once after the reasoning"
    if not (rest.startswith("<answer>") and rest.endswith("</answer>")):
        return "expected nothing around <answer>...</answer>"
    answer = rest.removeprefix("<answer>").removesuffix("</answer>")
    return "" if answer.strip() else "the <answer> is empty"


def _think_boxed_problem(text: str) -> str:
    rest, problem = _after_think(text)
    return problem or _boxed_problem(rest)


_PROBLEMS = {
    "boxed": _boxed_problem,
    "think_answer": _think_answer_problem,
    "think_boxed": _think_boxed_problem,
}


@hookimpl
def register_rewards(register: Register) -> None:
    register(format_reward)
    register(regex)
