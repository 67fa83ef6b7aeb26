"""Rewards for the shape of the completion: `format` (named patterns) and `regex` (one's own)."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

from pydantic import Field, field_validator, model_validator

from verl_lite.plugins.builtin.answer_marks import boxes
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import Register, hookimpl, reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score

Pattern = Literal["boxed", "think_answer", "think_boxed", "code_fence"]
TAG = r"^[A-Za-z][A-Za-z0-9_-]*$"


class FormatOptions(ConfigModel):
    r"""The shape the completion must have.

    boxed         exactly one \boxed{...}, closed, with something in it
    think_answer  <think>reasoning</think> and then <answer>something</answer>, each once, nothing after
    think_boxed   <think>reasoning</think>, then text with exactly one \boxed{...}
    code_fence    exactly one Markdown code block, closed, with something in it
    """

    pattern: Pattern = Field(default="think_answer", description="the shape; see above")
    think_tag: str = Field(
        default="think", pattern=TAG, description="name of the reasoning tag, without brackets"
    )
    answer_tag: str = Field(
        default="answer", pattern=TAG, description="name of the answer tag (think_answer)"
    )
    prompt_opens_think: bool = Field(
        default=False,
        description="the chat template wrote the opening reasoning tag: the completion may start inside",
    )
    language: str = Field(
        default="",
        description="language the code block must name, ignoring case (code_fence); empty for any or none",
    )

    @model_validator(mode="after")
    def _options_fit_the_pattern(self) -> "FormatOptions":
        if self.language and self.pattern != "code_fence":
            raise ValueError(f"language={self.language!r} is for pattern code_fence, not {self.pattern}")
        if self.think_tag == self.answer_tag:
            raise ValueError(f"think_tag and answer_tag are both {self.think_tag!r}: they must differ")
        return self


class RegexOptions(ConfigModel):
    """A regular expression of Python's `re`; `.` matches line ends too."""

    pattern: str = Field(min_length=1, description="the regular expression")
    fullmatch: bool = Field(default=True, description="the whole completion must match; else any part of it")

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
    problem = _PROBLEMS[options.pattern](rollout.completion.strip(), options)
    return Score(0.0, reason=problem) if problem else Score(1.0)


@reward("regex", options=RegexOptions)  # isolated: a pattern with nested repeats can run for hours
def regex(rollout: Rollout, options: RegexOptions) -> Score:
    """1.0 when the completion matches the regular expression, else 0.0."""
    compiled = _compiled(options.pattern)
    if options.fullmatch:
        matches, reason = compiled.fullmatch(rollout.completion), "the completion as a whole does not match"
    else:
        matches, reason = compiled.search(rollout.completion), "no part of the completion matches"
    return Score(1.0) if matches else Score(0.0, reason=reason)


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


def _boxed_problem(text: str, options: FormatOptions) -> str:
    r"""What keeps `text` from holding exactly one closed, non-empty \boxed{...}; "" if nothing does."""
    count = text.count(r"\boxed{")
    if count != 1:
        return rf"{count} \boxed{{...}}, expected 1"
    found = boxes(text)
    if not found:
        return r"the \boxed{ is not closed"
    return "" if found[0].content.strip() else r"the \boxed{} is empty"


def _after_think(text: str, options: FormatOptions) -> tuple[str, str]:
    """(the text after the reasoning, "") or ("", what is wrong with the reasoning part)."""
    opening, closing = f"<{options.think_tag}>", f"</{options.think_tag}>"
    if options.prompt_opens_think and not text.startswith(opening):
        text = opening + text
    if text.count(opening) != 1 or text.count(closing) != 1:
        return "", f"expected {opening}...{closing} exactly once"
    before, _, rest = text.partition(opening)
    thought, closed, rest = rest.partition(closing)
    if before.strip() or not closed:
        return "", f"expected {opening}...{closing} at the start"
    return (rest, "") if thought.strip() else ("", f"the {opening} part is empty")


def _think_answer_problem(text: str, options: FormatOptions) -> str:
    rest, problem = _after_think(text, options)
    if problem:
        return problem
    rest = rest.strip()
    opening, closing = f"<{options.answer_tag}>", f"</{options.answer_tag}>"
    if rest.count(opening) != 1 or rest.count(closing) != 1:
        return f"expected {opening}...{closing} exactly once after the reasoning"
    if not (rest.startswith(opening) and rest.endswith(closing)):
        return f"expected nothing around {opening}...{closing}"
    answer = rest.removeprefix(opening).removesuffix(closing)
    return "" if answer.strip() else f"the {opening} is empty"


def _think_boxed_problem(text: str, options: FormatOptions) -> str:
    rest, problem = _after_think(text, options)
    return problem or _boxed_problem(rest, options)


def _code_fence_problem(text: str, options: FormatOptions) -> str:
    """A fence is a line that begins with at least three backticks; one without a word closes it."""
    fences = [
        (at, line.strip()) for at, line in enumerate(text.split("\n")) if line.lstrip().startswith("```")
    ]
    if not fences:
        return "no code block: expected one, between lines of ```"
    if len(fences) == 1:
        return "the code block is not closed: expected a line of ``` after it"
    if len(fences) > 2:
        return f"{len(fences)} lines of ```, expected 2: one code block"
    (first, opening), (last, closing) = fences
    if closing.strip("`"):
        return f"the code block is closed by {closing[:40]!r}, expected ```"
    named = opening.strip("`").strip()
    if options.language and named.casefold() != options.language.casefold():
        return f"the code block is {named[:40] or 'of no named language'!r}, expected {options.language!r}"
    return "" if "".join(text.split("\n")[first + 1 : last]).strip() else "the code block is empty"


_PROBLEMS: Mapping[Pattern, Callable[[str, FormatOptions], str]] = {
    "boxed": _boxed_problem,
    "think_answer": _think_answer_problem,
    "think_boxed": _think_boxed_problem,
    "code_fence": _code_fence_problem,
}


@hookimpl
def register_rewards(register: Register) -> None:
    register(format_reward)
    register(regex)
