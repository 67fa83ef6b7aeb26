"""Rewards for multiple-choice questions: `choice`."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.verifiers import find_boxed, find_tagged

Mode = Literal["auto", "boxed", "tag", "phrase", "whole", "last_letter"]

_AUTO: Sequence[Mode] = ("boxed", "tag", "phrase", "whole")  # the first that finds an answer counts
LETTERS = "ABCDEFGHIJ"
MAX_PHRASES = 20  # of several "the answer is", only the last ones are read
MAX_ANSWER_CHARS = 2000  # longer text is no answer to a multiple-choice question
# A look-ahead for the rest, so that a later "the answer is" on the same line is another match.
_PHRASE = re.compile(
    r"\b(?:answer|choice|option)\b[*_]{0,4}\s{0,4}(?:is\b|should\s+be\b|must\s+be\b|[:=])[:\s*_]{0,8}"
    r"(?=([^\n]{1,200}))",
    re.IGNORECASE,
)
# The rest of the sentence, without reasons. "B. Option C is wrong" ends after the B.
_CLAUSE = re.compile(r"(?:(?!\b(?:because|since)\b)[^\n.;!?])*", re.IGNORECASE)
_DECORATION = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s?\{([^{}]*)\}|[*_`$]")
_LABEL = re.compile(
    r"(?:the\s+)?(?:correct\s+)?(?:answer|choice|option|letter)\s*(?:is\b|:)?\s*", re.IGNORECASE
)
_LETTER = re.compile(
    r"(?:\(([A-J])\)|\[([A-J])\]|([A-J])(?![A-Za-z0-9'\u2019]))\s*[).:,-]*\s*(.*)", re.DOTALL
)
_ANY_LETTER = re.compile(r"\(([A-J])\)|(?<![A-Za-z0-9'\u2019])([A-J])(?![A-Za-z0-9'\u2019])")


class ChoiceOptions(ConfigModel):
    """How the chosen option is found in the completion and compared with the reference.

    The reference is a letter ("B", "(B)"), the option's text, or both ("B) 12").
    """

    extract: Mode = Field(
        default="auto",
        description=r"where the answer is. boxed: the last \boxed{...}; tag: the last "
        "<answer>...</answer>; phrase: after the last 'answer is', 'answer:', 'option is'; whole: the "
        "completion is the answer; last_letter: the last isolated letter; "
        "auto: boxed, else tag, else phrase, else whole",
    )
    compare: Literal["letter", "text", "either", "both"] = Field(
        default="either",
        description="what must agree with the reference; text needs the options' texts or a reference with "
        "text; both means letter and text",
    )
    choices_column: str = Field(
        default="choices",
        description="the column with the options' texts, as a list or as {letter: text}; rows may lack it",
    )
    ignore_case: bool = Field(default=True, description="ignore case when comparing texts")


Choice = tuple[str, str]  # a letter or "", a text or ""


@reward("choice", options=ChoiceOptions, isolate=False, cache=False)
def choice_reward(rollout: Rollout, options: ChoiceOptions) -> Score:
    """1.0 when the completion chooses the reference's option, else 0.0; naming several is wrong."""
    references = rollout.references
    if not references:
        return Score.failed(ScoreOutcome.ABSTAIN, "the rollout has no reference")
    try:
        texts = _texts(rollout.columns.get(options.choices_column), options)
        accepted = [_expected(reference, texts, options) for reference in references]
    except ValueError as error:
        return Score.failed(ScoreOutcome.ERROR, f"bad row: {error}")
    candidates = _EXTRACT[options.extract](rollout.completion)
    if not candidates:
        return Score(0.0, reason=f"no answer was found (extract: {options.extract})")
    try:
        given = _first_option(candidates, accepted, texts, options)
    except ValueError as error:
        return Score(0.0, reason=str(error))
    if given is None:
        return Score(0.0, reason=f"{candidates[0][:80]!r} names no option")
    details = {"letter": given[0], "text": given[1][:200]}
    if any(_agree(given, expected, options) for expected in accepted):
        return Score(1.0, details=details)
    wanted = " or ".join(map(_shown, accepted))
    return Score(0.0, reason=f"expected {wanted}, got {_shown(given)}", details=details)


def _expected(reference: str, texts: Mapping[str, str], options: ChoiceOptions) -> Choice:
    """The option that a reference names; raises ValueError if it names none or several."""
    expected = _read(reference, texts, options)
    if expected is None or (texts and not expected[0]):
        raise ValueError(f"the reference {reference[:80]!r} names no option")
    return expected


def _first_option(
    candidates: Iterable[str], accepted: Sequence[Choice], texts: Mapping[str, str], options: ChoiceOptions
) -> Choice | None:
    """The first candidate that names an option; without option texts it must be a letter."""
    wants_letter = not texts and not any(text for _, text in accepted)
    for candidate in candidates:
        given = _read(candidate, texts, options)
        if given is not None and (given[0] or not wants_letter):
            return given
    return None


def _texts(column: object, options: ChoiceOptions) -> dict[str, str]:
    """Letter -> normalised text; empty if the row has no options. Raises ValueError for a bad column."""
    if column is None:
        return {}
    if isinstance(column, Mapping):
        pairs: Iterable[tuple[object, object]] = column.items()
    elif isinstance(column, (list, tuple)):
        if len(column) > len(LETTERS):
            raise ValueError(f"{len(column)} choices, expected at most {len(LETTERS)}")
        pairs = zip(LETTERS, column, strict=False)
    else:
        raise ValueError(f"column {options.choices_column!r} holds {type(column).__name__}, expected a list")
    found = {str(letter).strip().upper(): _normalised(str(text), options) for letter, text in pairs}
    wrong = sorted(letter for letter in found if len(letter) != 1 or letter not in LETTERS)
    if wrong:
        raise ValueError(f"choice {wrong[0]!r}: expected a letter from A to J")
    return found


def _read(answer: str, texts: Mapping[str, str], options: ChoiceOptions) -> Choice | None:
    """The option `answer` names, or None; raises ValueError if it names several.

    An option's exact text takes precedence over any letter in it ("A dog" is not option A).
    """
    if len(answer) > MAX_ANSWER_CHARS:
        return None
    plain = _DECORATION.sub(lambda match: match[1] or "", answer).strip()
    label = _LABEL.match(plain)
    plain = plain[label.end() if label else 0 :].strip()
    text = _normalised(plain, options)
    same = sorted(letter for letter, known in texts.items() if known == text)
    if same:
        return (same[0] if len(same) == 1 else ""), text
    match = _LETTER.match(plain)
    if match is None:
        return None if texts or not text else ("", text)
    letter, rest = match[1] or match[2] or match[3], match[4]
    others = {found[1] or found[2] for found in _ANY_LETTER.finditer(rest)} - {letter, "A", "I"}
    if others and _normalised(rest, options) != texts.get(letter):
        raise ValueError(f"several options: {letter}, {', '.join(sorted(others))}")
    if texts and letter not in texts:
        return None
    return letter, _normalised(rest, options)


def _normalised(text: str, options: ChoiceOptions) -> str:
    text = " ".join(text.split()).strip(" .;:")
    return text.casefold() if options.ignore_case else text


def _agree(given: Choice, expected: Choice, options: ChoiceOptions) -> bool:
    letters = bool(given[0]) and given[0] == expected[0]
    texts = bool(given[1]) and given[1] == expected[1]
    if options.compare == "letter":
        return letters
    if options.compare == "text":
        return texts
    return (letters and texts) if options.compare == "both" else (letters or texts)


def _shown(found: Choice) -> str:
    return " ".join(part for part in (found[0], found[1][:80]) if part)


def _phrases(text: str) -> list[str]:
    """The text after each phrase, last phrase first."""
    rests = deque((match[1] for match in _PHRASE.finditer(text)), maxlen=MAX_PHRASES)
    clauses = [_CLAUSE.match(rest) for rest in reversed(rests)]
    return [clause[0] for clause in clauses if clause and clause[0].strip()]


def _last_letter(text: str) -> list[str]:
    last = deque(_ANY_LETTER.finditer(text), maxlen=1)
    return [match[1] or match[2] for match in last]


_EXTRACT: Mapping[Mode, Callable[[str], list[str]]] = {
    "auto": lambda text: next(filter(None, (_EXTRACT[mode](text) for mode in _AUTO))),
    "boxed": lambda text: [mark.content for mark in find_boxed(text)[-1:]],
    "tag": lambda text: [mark.content for mark in find_tagged(text, "answer")[-1:]],
    "phrase": _phrases,
    "whole": lambda text: [text],
    "last_letter": _last_letter,
}
