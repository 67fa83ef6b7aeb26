"""Answers in words: their plain text, and the numbers they write out."""

import re
from fractions import Fraction

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_NOT_WORDS = re.compile(r"[^a-z0-9%.:/'+-]+")
_ARTICLES = frozenset(("the", "a", "an"))


def plain_words(cleaned: str) -> str:
    r"""Lower-case words of an answer without `\text`, punctuation and articles.

    >>> plain_words(r"\text{The Red  Ball.}")
    'red ball'
    """
    text = _TEXT_COMMAND.sub(r" \1 ", cleaned)
    words = _NOT_WORDS.sub(" ", text.casefold().replace("\\ ", " ")).split()
    stripped = (word.strip(".,:'") for word in words)
    return " ".join(word for word in stripped if word and word not in _ARTICLES)


_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_VALUES = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * (i + 2) for i, word in enumerate(_TENS)
}


def number_in_words(words: str) -> Fraction | None:
    """The value of "twenty-one", "three hundred and five", "two thirds"; None for anything else.

    >>> number_in_words("two thirds"), number_in_words("one hundred and five")
    (Fraction(2, 3), Fraction(105, 1))
    """
    parts = words.replace("-", " ").split()
    sign = 1
    if parts and parts[0] in ("minus", "negative"):
        sign, parts = -1, parts[1:]
    if not 1 <= len(parts) <= 12:
        return None
    if parts[-1].rstrip("s") in _PARTS or parts[-1] == "halves":
        below = 2 if parts[-1] == "halves" else _PARTS[parts[-1].rstrip("s")]
        above = _whole(parts[:-1]) if len(parts) > 1 else 1
        return None if above is None else Fraction(sign * above, below)
    value = _whole(parts)
    return None if value is None else Fraction(sign * value)


def _whole(parts: list[str]) -> int | None:
    total, current, seen = 0, 0, False
    for part in parts:
        if part in _VALUES:
            current, seen = current + _VALUES[part], True
        elif part in _SCALES and seen:
            scale = _SCALES[part]
            if scale == 100:
                current *= 100
            else:
                total, current = total + current * scale, 0
        elif part != "and" or not seen:
            return None
    return total + current if seen else None
