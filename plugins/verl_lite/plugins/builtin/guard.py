r"""A guard against known ways to earn a reward without doing the task: `guard`."""

import re
from collections.abc import Sequence

from pydantic import Field

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score
from verl_lite.verifiers import AnswerMark, find_boxed, find_tagged

_WORD = re.compile(r"\S*\w\S*")
_OR = re.compile(r"(?<![A-Za-z])or(?![A-Za-z])|\\text\s?\{\s*or\s*\}", re.IGNORECASE)


class GuardOptions(ConfigModel):
    r"""What a completion must not do. An answer is the content of \boxed{...} or <answer>...</answer>.

    0 turns a check off (false for `require_answer`).
    """

    min_reasoning_words: int = Field(
        default=10, ge=0, description="minimum words before the first answer, not counting its tags"
    )
    min_distinct_words: int = Field(
        default=5,
        ge=0,
        description="minimum distinct words among them, so that repeating one word is not enough",
    )
    max_answers: int = Field(default=1, ge=0, description="maximum distinct answers in a completion")
    max_alternatives: int = Field(
        default=1, ge=0, description="maximum alternatives in one answer: '3 or 5 or 7' has three"
    )
    max_answer_chars: int = Field(
        default=300, ge=0, description="maximum characters of one answer: a long one may hold many guesses"
    )
    max_prompt_copy_words: int = Field(
        default=0, ge=0, description="maximum consecutive words copied from the prompt"
    )
    require_answer: bool = Field(default=False, description="refuse a completion without an answer")


@reward("guard", options=GuardOptions, isolate=False, cache=False)
def guard_reward(rollout: Rollout, options: GuardOptions) -> Score:
    """1.0 for a completion that passes every check, else 0.0 with the first that failed."""
    problem = _problem(rollout, options)
    return Score(0.0, reason=problem) if problem else Score(1.0)


def _problem(rollout: Rollout, options: GuardOptions) -> str:
    marks = [*find_boxed(rollout.completion), *find_tagged(rollout.completion, "answer")]
    marks.sort(key=lambda mark: mark.start)
    if options.require_answer and not marks:
        return r"there is no answer in \boxed{...} or <answer>...</answer>"
    return (
        _reasoning_problem(rollout.completion, marks, options)
        or _stuffing_problem(marks, options)
        or _copy_problem(rollout, options)
    )


def _reasoning_problem(text: str, marks: Sequence[AnswerMark], options: GuardOptions) -> str:
    """Without an answer the whole completion counts as reasoning; `require_answer` checks for the answer."""
    if not marks:
        return ""
    before = re.sub(r"</?[A-Za-z][A-Za-z0-9_-]{0,40}>", " ", text[: marks[0].start])
    words = [word.casefold() for word in _WORD.findall(before)]
    if len(words) < options.min_reasoning_words:
        return f"{len(words)} words before the answer, expected at least {options.min_reasoning_words}"
    if len(set(words)) < options.min_distinct_words:
        return (
            f"{len(set(words))} different words before the answer, "
            f"expected at least {options.min_distinct_words}"
        )
    return ""


def _stuffing_problem(marks: Sequence[AnswerMark], options: GuardOptions) -> str:
    answers = {"".join(_inner(mark).split()).casefold() for mark in marks}
    if options.max_answers and len(answers) > options.max_answers:
        return f"{len(answers)} different answers, expected at most {options.max_answers}"
    for mark in marks:
        size = len(mark.content)
        if options.max_answer_chars and size > options.max_answer_chars:
            return f"an answer of {size} characters, expected at most {options.max_answer_chars}"
        parts = len(_OR.findall(mark.content)) + 1
        if options.max_alternatives and parts > options.max_alternatives:
            return f"an answer of {parts} alternatives, expected at most {options.max_alternatives}"
    return ""


def _inner(mark: AnswerMark) -> str:
    r"""<answer>\boxed{4}</answer> offers the answer 4 once, not two answers."""
    inside = find_boxed(mark.content)
    return inside[0].content if len(inside) == 1 else mark.content


def _copy_problem(rollout: Rollout, options: GuardOptions) -> str:
    size = options.max_prompt_copy_words + 1
    if size == 1:
        return ""
    asked, said = (text.casefold().split() for text in (rollout.prompt_text, rollout.completion))
    runs = {tuple(asked[at : at + size]) for at in range(len(asked) - size + 1)}
    if any(tuple(said[at : at + size]) in runs for at in range(len(said) - size + 1)):
        return f"more than {options.max_prompt_copy_words} words in a row are copied from the prompt"
    return ""
