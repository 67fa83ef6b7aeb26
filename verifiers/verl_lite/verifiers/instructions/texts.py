"""Words, sentences and paragraphs of a text, and the arguments of an instruction."""

import re
import string
import unicodedata
from collections.abc import Mapping

PUNCTUATION = string.punctuation + "“”‘’«»…–—。、！？，；："
_NO_PUNCTUATION = str.maketrans("", "", PUNCTUATION)
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof sr jr st rev gen sen rep gov lt col capt vs etc e.g i.e cf fig no vol p pp ed approx "
    "inc ltd co corp dept univ jan feb mar apr jun jul aug sep sept oct nov dec u.s u.k a.m p.m ph.d".split()
)
_EMOJI = (
    (0x1F000, 0x1FAFF), (0x2600, 0x27BF), (0x2B00, 0x2BFF), (0x231A, 0x231B), (0x23E9, 0x23FA),
    (0xFE0F, 0xFE0F),    (0x200D, 0x200D), (0x203C, 0x203C), (0x2049, 0x2049), (0x3030, 0x3030),
)  # fmt: skip
_END = re.compile(r"(?:[.!?]+|[。！？]+)[\"'”’)\]*_]*(?=\s|$|(?<=[。！？])(?=.))")


class Arguments:
    """The arguments of one instruction. Every getter raises ValueError for one that is missing or wrong."""

    def __init__(self, kind: str, given: Mapping[str, object]) -> None:
        self._kind, self._given = kind, {name: value for name, value in given.items() if value is not None}

    def number(self, name: str) -> int:
        value = self._get(name)
        try:
            return int(float(str(value)))  # tables with gaps hold 5.0 for 5
        except (ValueError, OverflowError):
            raise ValueError(f"{self._kind}: {name}={value!r:.40} is no number") from None

    def text(self, name: str) -> str:
        value = self._get(name)
        if not isinstance(value, str) or not value:
            raise ValueError(f"{self._kind}: {name}={value!r:.40} is no text")
        return value

    def texts(self, name: str) -> list[str]:
        value = self._get(name)
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise ValueError(f"{self._kind}: {name}={value!r:.40} is no list of texts")
        return [str(one) for one in value]

    def holds(self, count: int, number: str, relation: str) -> bool:
        """Whether `count` is in the relation ("less than", "at least", ...) to the argument `number`."""
        value, wanted = self.text(relation), self.number(number)
        if value not in RELATIONS:
            raise ValueError(f"{self._kind}: {relation}={value!r}; expected one of {', '.join(RELATIONS)}")
        return wanted + RELATIONS[value][0] <= count <= wanted + RELATIONS[value][1]

    def _get(self, name: str) -> object:
        if name not in self._given:
            given = ", ".join(self._given) or "none"
            raise ValueError(f"{self._kind} needs the argument {name!r}; the row gives {given}")
        return self._given[name]


_FAR = 10**9
# The range of the count, relative to the argument.
RELATIONS: Mapping[str, tuple[int, int]] = {
    "less than": (-_FAR, -1),
    "at least": (0, _FAR),
    "at most": (-_FAR, 0),
    "more than": (1, _FAR),
    "exactly": (0, 0),
}


def plain_words(text: str) -> list[str]:
    """The words between white space, in lower case, without any punctuation; nothing but punctuation is none.

    >>> plain_words("Don't -- say: Well-known!")
    ['dont', 'say', 'wellknown']
    """
    return text.lower().translate(_NO_PUNCTUATION).split()


def outer_words(text: str) -> list[str]:
    """The words as they stand, without punctuation around them."""
    return [bare for word in text.split() if (bare := word.strip(PUNCTUATION))]


def count_words(text: str) -> int:
    """Runs of letters, digits and underscores, as IFEval counts words."""
    return len(re.findall(r"\w+", text))


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with its end mark. A line without an end mark joins the next one.

    >>> sentences('He met Dr. Wu at 3.5 km. "Why?" he said. Nobody knew!')
    ['He met Dr. Wu at 3.5 km.', '"Why?" he said.', 'Nobody knew!']
    """
    found, start = [], 0
    for match in _END.finditer(text):
        before = text[start : match.start()].split()
        last = before[-1].lstrip("(\"'“") if before else ""
        after = text[match.end() :].lstrip()
        is_short = match[0] == "." and (last.lower() in _ABBREVIATIONS or re.fullmatch(r"[A-Z]", last))
        if is_short and after:
            continue
        if after[:1].islower() and match[0] != "." * len(match[0]):
            continue  # "Why?" he said
        found.append(text[start : match.end()].strip())
        start = match.end()
    rest = text[start:].strip()
    return [one for one in [*found, rest] if one.strip(PUNCTUATION + string.whitespace) or one]


def plain_ascii(text: str) -> str:
    """Without accents: São Tomé becomes Sao Tome."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def is_emoji(char: str) -> bool:
    """Whether a character is a pictograph, or a part of one (a modifier, a joiner, a flag's letter)."""
    return bool(char) and any(low <= ord(char) <= high for low, high in _EMOJI)
