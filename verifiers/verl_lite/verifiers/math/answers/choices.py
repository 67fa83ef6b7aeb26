"""Multiple choice: a letter, several letters, or a letter with its text."""

import re
from dataclasses import dataclass

from verl_lite.verifiers.math.answers.answer import Answer, read_answer
from verl_lite.verifiers.math.answers.assignments import assignment
from verl_lite.verifiers.math.comparer import Comparer, Decision, decided
from verl_lite.verifiers.verdict import Outcome

_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|textsf)\s*\{([^{}]*)\}")
_LETTER = re.compile(
    r"(?:(?:option|choice|answer|letter)s?\s*:?\s*)?"
    r"(?:\(\s*([A-Ja-j])\s*\)|\[\s*([A-J])\s*\]|([A-J])(?=\s*(?:[).:]|-\s|\Z|,?\s+because\b|\s+is\b)))"
    r"\s*[).:]?\s*-?\s*(.*)\Z",
    re.IGNORECASE | re.DOTALL,
)
# Possessive throughout: otherwise each gap could be split in several ways, and the ways multiply.
_SEVERAL = re.compile(r"\(?\s*+([A-J](?>\s*+\)?+\s*+(?:,?\s*+and|,|&|;)?+\s*+\(?+\s*+[A-J])++)\s*+\)?\Z")
_DENIED = re.compile(r"is\s+(?!(?:the\s+)?(?:only\s+)?(?:answer|correct|right|best|true)\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen letters, and the text that follows a single one."""

    letters: frozenset[str]
    text: str = ""


def read_choice(answer: Answer) -> Choice | None:
    """The choice an answer states; None if it states none.

    >>> read_choice(Answer("(B) 12"))
    Choice(letters=frozenset({'B'}), text='12')
    """
    if len(answer.text) > 2000 or answer.numbered is not None:
        return None
    text = " ".join(_TEXT.sub(r" \1 ", answer.text).split()).strip("* ")
    match = None if _SEVERAL.match(text) else _LETTER.match(text)
    if match is not None:
        letter = match[1] or match[2] or match[3]
        bare_lower = match[3] is not None and match[3].islower()
        offers_more = re.search(r"(?<![A-Za-z])\(?[A-J]\s*[):]", match[4]) is not None
        if not bare_lower and not offers_more and not _DENIED.match(match[4]):
            return Choice(frozenset(letter.upper()), match[4].strip())
    several = _SEVERAL.match(text)
    if several is not None:
        letters = re.findall("[A-J]", several[1])
        if len(set(letters)) == len(letters):
            return Choice(frozenset(letters))
    return None


def is_letter(answer: Answer) -> bool:
    """Whether an answer is nothing but the letter of a choice."""
    choice = answer.read(read_choice)
    return choice is not None and len(choice.letters) == 1 and not choice.text


def compare(comparer: Comparer, reference: Answer, response: Answer) -> Decision | None:
    """The same letters; for a letter with a text, the letter or the text."""
    ours = reference.read(read_choice)
    if ours is None or not _counts(ours, reference.text):
        return None
    theirs = response.read(read_choice)
    if theirs is None and response.expr is not None and (named := assignment(response.expr)) is not None:
        theirs = read_answer(named[1].name).read(read_choice)
    if theirs is not None and theirs.letters == ours.letters:
        if not (ours.text and theirs.text) or ours.text == theirs.text:
            return Decision(Outcome.CORRECT, "choice")
        inner = comparer.compare_texts(comparer, ours.text, theirs.text)
        return decided(inner.outcome is Outcome.CORRECT, "choice", "the letter is right, its text is not")
    if ours.text and (theirs is None or not theirs.text):
        inner = comparer.compare_texts(comparer, ours.text, response.raw)
        if inner.outcome is Outcome.CORRECT:
            return Decision(Outcome.CORRECT, inner.matched_by)
    return decided(False, "", "another choice" if theirs else "the answer is not a choice")


def _counts(choice: Choice, text: str) -> bool:
    """A letter followed by text is a choice only if it is marked as one: "(A) 12", not "A cat"."""
    if len(choice.letters) == 1 and choice.text:
        return not text[0].isalpha() or text[1:2] in (")", ".", ":")
    return True
