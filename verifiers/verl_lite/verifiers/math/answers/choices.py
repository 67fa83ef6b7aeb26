"""Multiple choice: a letter, several letters, or a letter with its text."""

import re
from dataclasses import dataclass

__all__ = ["Choice", "read_choice"]

_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|textsf)\s*\{([^{}]*)\}")
_LETTER = re.compile(
    r"(?:(?:option|choice|answer|letter)s?\s*:?\s*)?"
    r"(?:\(\s*([A-Ja-j])\s*\)|\[\s*([A-J])\s*\]|([A-J])(?=\s*(?:[).:]|-\s|\Z|,?\s+because\b|\s+is\b)))"
    r"\s*[).:]?\s*-?\s*(.*)\Z",
    re.IGNORECASE | re.DOTALL,
)
# Possessive throughout: every gap could otherwise be split in several ways, and their number multiplies.
_SEVERAL = re.compile(r"\(?\s*+([A-J](?>\s*+\)?+\s*+(?:,?\s*+and|,|&|;)?+\s*+\(?+\s*+[A-J])++)\s*+\)?\Z")


@dataclass(frozen=True, slots=True)
class Choice:
    """The letters chosen, and the text that stood behind a single one."""

    letters: frozenset[str]
    text: str = ""


def read_choice(cleaned: str) -> Choice | None:
    """The choice a cleaned answer states; None where it is no choice.

    >>> read_choice("(B) 12")
    Choice(letters=frozenset({'B'}), text='12')
    """
    if len(cleaned) > 2000:
        return None
    text = " ".join(_TEXT.sub(r" \1 ", cleaned).split()).strip("* ")
    match = None if _SEVERAL.match(text) else _LETTER.match(text)
    if match is not None:
        letter = match[1] or match[2] or match[3]
        bare_lower = match[3] is not None and match[3].islower()
        offers_more = re.search(r"(?<![A-Za-z])\(?[A-J]\s*[):]", match[4]) is not None
        if not bare_lower and not offers_more:
            return Choice(frozenset(letter.upper()), match[4].strip())
    several = _SEVERAL.match(text)
    if several is not None:
        letters = re.findall("[A-J]", several[1])
        if len(set(letters)) == len(letters):
            return Choice(frozenset(letters))
    return None
