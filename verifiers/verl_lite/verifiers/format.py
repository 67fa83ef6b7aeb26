"""Checks the shape of a response: tags, a box, a code block. Says what is missing."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from verl_lite.verifiers.answer_marks import find_boxed
from verl_lite.verifiers.verdict import Outcome, Verdict

FormatPattern = Literal["boxed", "think_answer", "think_boxed", "code_fence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatShape:
    r"""The expected shape. `prompt_opens_think`: the prompt ends with the opening think tag.

    boxed         exactly one \boxed{...}, closed and not empty
    think_answer  <think>reasoning</think>, then <answer>something</answer>, each once, nothing after
    think_boxed   <think>reasoning</think>, then text with exactly one \boxed{...}
    code_fence    exactly one Markdown code block, closed and not empty; of `language`, unless that is ""
    """

    pattern: FormatPattern = "think_answer"
    think_tag: str = "think"
    answer_tag: str = "answer"
    prompt_opens_think: bool = False
    language: str = ""


def verify_format(response: str, *, options: FormatShape | None = None) -> Verdict:
    r"""Whether `response` has the shape: correct, or wrong with the problem in `reason`.

    >>> verify_format(r"\boxed{4} \boxed{5}", options=FormatShape(pattern="boxed")).reason
    '2 \\boxed{...}, expected 1'
    """
    started = time.perf_counter()
    shape = options or FormatShape()
    problem = format_problem(response, shape)
    return Verdict(
        outcome=Outcome.WRONG if problem else Outcome.CORRECT,
        matched_by="" if problem else "format",
        reason=problem,
        credit=0.0 if problem else 1.0,
        wall_s=time.perf_counter() - started,
    )


def format_problem(response: str, shape: FormatShape) -> str:
    """What is wrong with the shape of `response`, in words; "" if nothing is."""
    return _PROBLEMS[shape.pattern](response.strip(), shape)


def _boxed_problem(text: str, shape: FormatShape) -> str:
    r"""What is wrong, unless `text` holds exactly one closed, non-empty \boxed{...}; then ""."""
    count = text.count(r"\boxed{")
    if count != 1:
        return rf"{count} \boxed{{...}}, expected 1"
    found = find_boxed(text)
    if not found:
        return r"the \boxed{ is not closed"
    return "" if found[0].content.strip() else r"the \boxed{} is empty"


def _after_think(text: str, shape: FormatShape) -> tuple[str, str]:
    """(the text after the reasoning, "") or ("", what is wrong with the reasoning)."""
    opening, closing = f"<{shape.think_tag}>", f"</{shape.think_tag}>"
    if shape.prompt_opens_think and not text.startswith(opening):
        text = opening + text
    if text.count(opening) != 1 or text.count(closing) != 1:
        return "", f"expected {opening}...{closing} exactly once"
    before, _, rest = text.partition(opening)
    thought, closed, rest = rest.partition(closing)
    if before.strip() or not closed:
        return "", f"expected {opening}...{closing} at the start"
    return (rest, "") if thought.strip() else ("", f"the {opening} part is empty")


def _think_answer_problem(text: str, shape: FormatShape) -> str:
    rest, problem = _after_think(text, shape)
    if problem:
        return problem
    rest = rest.strip()
    opening, closing = f"<{shape.answer_tag}>", f"</{shape.answer_tag}>"
    if rest.count(opening) != 1 or rest.count(closing) != 1:
        return f"expected {opening}...{closing} exactly once after the reasoning"
    if not (rest.startswith(opening) and rest.endswith(closing)):
        return f"expected nothing around {opening}...{closing}"
    answer = rest.removeprefix(opening).removesuffix(closing)
    return "" if answer.strip() else f"the {opening} is empty"


def _think_boxed_problem(text: str, shape: FormatShape) -> str:
    rest, problem = _after_think(text, shape)
    return problem or _boxed_problem(rest, shape)


def _code_fence_problem(text: str, shape: FormatShape) -> str:
    """A fence is a line that starts with at least three backticks; one without a word closes the block."""
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
    if shape.language and named.casefold() != shape.language.casefold():
        return f"the code block is {named[:40] or 'of no named language'!r}, expected {shape.language!r}"
    return "" if "".join(text.split("\n")[first + 1 : last]).strip() else "the code block is empty"


_PROBLEMS: Mapping[FormatPattern, Callable[[str, FormatShape], str]] = {
    "boxed": _boxed_problem,
    "think_answer": _think_answer_problem,
    "think_boxed": _think_boxed_problem,
    "code_fence": _code_fence_problem,
}
