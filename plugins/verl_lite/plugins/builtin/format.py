"""Rewards for the shape of the completion: `format` (named patterns) and `regex` (your own)."""

import re
from functools import lru_cache

from pydantic import Field, field_validator, model_validator

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score
from verl_lite.verifiers import FormatPattern, FormatShape, format_problem

TAG = r"^[A-Za-z][A-Za-z0-9_-]*$"


class FormatOptions(ConfigModel):
    r"""The shape the completion must have.

    boxed         exactly one \boxed{...}, closed, with something in it
    think_answer  <think>reasoning</think> and then <answer>something</answer>, each once, nothing after
    think_boxed   <think>reasoning</think>, then text with exactly one \boxed{...}
    code_fence    exactly one Markdown code block, closed, with something in it
    """

    pattern: FormatPattern = Field(default="think_answer", description="the shape; see above")
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
    fullmatch: bool = Field(default=True, description="the whole completion must match, not just a part")

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
    problem = format_problem(rollout.completion, FormatShape(**options.model_dump()))
    return Score(0.0, reason=problem) if problem else Score(1.0)


@reward("regex", options=RegexOptions)  # isolated: nested repeats can run for hours
def regex_reward(rollout: Rollout, options: RegexOptions) -> Score:
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
