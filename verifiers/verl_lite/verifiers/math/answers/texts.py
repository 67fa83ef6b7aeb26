"""Names and plain text: Evelyn, "the red ball"."""

import re

from verl_lite.verifiers.math.answers import datetimes
from verl_lite.verifiers.math.answers.answer import Answer
from verl_lite.verifiers.math.comparer import Comparer, Decision, decided
from verl_lite.verifiers.math.expressions import Unreadable
from verl_lite.verifiers.math.reading.tokens import MAX_DIGITS
from verl_lite.verifiers.math.reading.words import plain_words
from verl_lite.verifiers.verdict import Outcome

_PROSE = re.compile(r"[A-Za-z0-9 .,;:!?'\"()/%&+-]*\Z")
_TEXT_ONLY = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}\\]*)\}")


def read_text(answer: Answer) -> str:
    """An answer that can only be text, or a number too long to compute with; "" for others."""
    if not isinstance(answer.tree, Unreadable):
        return ""
    if answer.read(is_prose) and not answer.text.endswith(("+", "/", "-", "=", "^")):
        return answer.text
    return answer.key if answer.key.isdigit() and len(answer.key) > MAX_DIGITS else ""


def is_prose(answer: Answer) -> bool:
    """Only words and ordinary punctuation, with letters and balanced brackets."""
    bare = _TEXT_ONLY.sub(r" \1 ", answer.text)
    letters = sum(1 for char in bare if char.isalpha())
    is_plain = _PROSE.match(bare) is not None or (not bare.isascii() and "\\" not in bare)
    return letters > 1 and is_plain and _is_balanced(bare)


def _is_balanced(text: str) -> bool:
    depth = 0
    for char in text:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if depth < 0:
            return False
    return depth == 0


def compare(comparer: Comparer, reference: Answer, response: Answer) -> Decision | None:
    """The same words, or the same time or date. None for a reference of another type."""
    if not reference.read(read_text):
        return None
    if same_text(reference, response):
        return Decision(Outcome.CORRECT, "text")
    if (ours := _cases(reference)) and ours == _cases(response):
        return Decision(Outcome.CORRECT, "text")
    return datetimes.compare_read(reference, response) or decided(False, "", "another text")


def _cases(answer: Answer) -> frozenset[str]:
    """2 if n is even, 1 if n is odd: a value for each condition, in any order; empty for other texts."""
    cases = [plain_words(case) for case in re.split(r"[,;]", _TEXT_ONLY.sub(r" \1 ", answer.text))]
    return frozenset(cases) if len(cases) > 1 and all(" if " in case for case in cases) else frozenset()


def same_text(reference: Answer, response: Answer) -> bool:
    """Whether two texts (not formulas) have the same words, ignoring case, articles and punctuation."""
    return bool(reference.words) and reference.words == response.words and response.read(_is_wordy)


def _is_wordy(answer: Answer) -> bool:
    return answer.read(is_prose) or not re.search(
        r"[<>=^_|{}]|\\(?!text|math|[ ,;])", _TEXT_ONLY.sub(" ", answer.text)
    )
