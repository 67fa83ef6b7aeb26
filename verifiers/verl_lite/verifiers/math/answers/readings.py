"""A simpler reading of an answer that says more than the answer: a letter, a label, a condition.

compare.py tries it where the answer as it stands is not equal. What is left out must be the same on both
sides, or be missing on one.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from verl_lite.verifiers.math.answers.answer import Answer, read_answer
from verl_lite.verifiers.math.answers.choices import read_choice
from verl_lite.verifiers.math.answers.forms import signs
from verl_lite.verifiers.math.answers.quantities import named_quantity, read_quantity
from verl_lite.verifiers.math.answers.units import unit_name
from verl_lite.verifiers.math.expressions import is_value, symbols
from verl_lite.verifiers.math.reading.names import FUNCTIONS
from verl_lite.verifiers.math.reading.statements import state

MAX_CHARS = 1000

_TEXT = r"\\(?:text|textrm|textbf|textit|mathrm|mbox|rm|operatorname)\s*+\{([^{}]*+)\}"
_UNWRAP = re.compile(_TEXT)
_QUALIFIER = re.compile(
    r"[\s,;(]*\b(?:for\s+(?:all|any|every|each|some|an?y?\s+arbitrary|integers?)\b|for\s+(?=[a-z0-9\\$])"
    r"|where\b|when\b|if\b|with\b|provided\b|such\s+that\b|given\b|as\s+long\s+as\b)",
    re.IGNORECASE,
)
_OTHER_CASE = re.compile(r"\b(?:otherwise|else|elsewhere)\b|;", re.IGNORECASE)
_UNIVERSAL = re.compile(r"[\s,;(]*\\forall\b")
_FILLERS = frozenset(
    "for all any every each some where when if with is are constant real integer number positive "
    "\\forall provided such that given an arbitrary a , . ( ) and".split()
)
_MARKED = re.compile(r"\s*(?:\(\s*[A-Ja-j]\s*\)|\[\s*[A-J]\s*\]|[A-J]\s*[).:])")
_UNIT_AT_END = re.compile(rf"(.*[^\s,;])[\s~]*((?:{_TEXT}[\s/]*)+)\Z", re.DOTALL)
_DECIMAL_WITH_UNIT = re.compile(r"\s*-?[0-9.,]+\s*([^0-9]+)\Z")
_NUMBER_AND_LETTER = re.compile(r"(-?[0-9.,]+)\s*([A-Za-z]{1,2})\Z")
_LEAD = re.compile(
    r"\s*(?:only|exactly|just|simply|namely|i\.e\.|thus|hence|so|therefore|then|we have|we get"
    r"|(?:(?:the|at|ordered|is|all|any|every|positive|natural|nonnegative)\s+)*(?:points?|vectors?|pairs?|intervals?|sets?|ratios?|values?|"
    r"integers?|numbers?|functions?|coordinates)(?:\s+(?:is|are|of|at))?|the\s+[a-z]+(?:\s+[a-z]+)?\s+(?:is|are))\b[,:]?\s*",
    re.I,
)
_ASIDE = re.compile(
    r"(.+?)\s*\(([^()]*(?:[A-Za-z]{3}|[ds]\.?\s?[pf]\b)[^()]*)\)\Z"
    r"|(.+?)\s+of\s+(?:the|an?|his|her|their|its)\s+[a-z ]+\Z"
)
_NO_ASIDE = re.compile(
    r"\b(?:or|not|maybe|perhaps|possibly|if|when|where|for|except|but|unless|no|wrong|incorrect|false|invalid"
    r"|rejected|extraneous|guess\w*|recurring|repeating|squared|cubed|plus|minus|times|negative|dozens?|hundreds?"
    r"|thousands?|[mb]illions?)\b|[<>=]|\\(?:in|ne|le|ge)\b"
)
_DOMAIN = re.compile(
    r"(.*?)\s*(?:[,;]\s*|\(\s*)([a-zA-Z]\s*(?:\\(?:ne|in)(?![a-z])|\\[lg]e(?![a-z])|[<>])[^,;=()]+(?:[\[(][^()=\[\]]*[\])])?)\)?\Z"
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_ALL_REALS = re.compile(r"\\in\s*\\mathbb\s*\{?\s*R\s*\}?")
_CONSTANT = re.compile(r"\b(?:arbitrary|constants?)\b", re.IGNORECASE)


class Reading(NamedTuple):
    """`core` is the answer in an answer of this kind, `rest` what else it says."""

    kind: str
    core: str
    rest: str


def read_simpler(answer: Answer) -> Reading | None:
    """The first reading of the table that applies; None for an answer that is nothing but itself."""
    if len(answer.text) > MAX_CHARS or not any(map(str.isalpha, answer.text)):
        return None
    return next((found for read in _READINGS if (found := read(answer)) is not None), None)


def fits(reading: Reading, other: Answer, other_reading: Reading | None) -> bool:
    """Whether what `reading` leaves out is missing from `other`, and not asked for by it."""
    if reading.kind == "letter":
        is_other_choice = other.read(read_choice) is not None
        return not is_other_choice and (other.expr is None or reading.rest not in symbols(other.expr))
    if reading.kind == "unit":
        return other.read(named_quantity) is None
    if reading.kind in ("unit letter", "approximation"):
        return True
    return other_reading is None or other_reading.kind != reading.kind


def same_rest(ours: Reading, theirs: Reading) -> bool:
    """Whether both leave out the same, in other words."""
    if "constant" in (ours.kind, theirs.kind):
        return {ours.kind, theirs.kind} <= {"constant", "condition"} and all(
            len(_gist(side.rest)) < 2 for side in (ours, theirs)
        )
    if ours.kind == theirs.kind == "condition" and all(
        re.fullmatch("[a-z]", "".join(_gist(s.rest))) for s in (ours, theirs)
    ):
        return True  # the letters may have other names
    return ours.kind == theirs.kind and ours.kind != "sentence" and _gist(ours.rest) == _gist(theirs.rest)


def _gist(rest: str) -> tuple[str, ...]:
    rest = _ALL_REALS.sub(" real ", rest)
    found = (sign if len(sign) < 3 else sign.rstrip("s") for sign in read_answer(rest).read(signs))
    return tuple(sign for sign in found if sign not in _FILLERS)


def _letter(answer: Answer) -> Reading | None:
    """(B) 5, \\text{B. }5: the text of a choice."""
    text = _UNWRAP.sub(r" \1 ", answer.text)
    marker = _MARKED.match(text)
    if marker is None:
        return None
    choice = answer.read(read_choice)
    if choice is None or not choice.text or len(choice.letters) != 1:
        return None
    return Reading("letter", text[marker.end() :], next(iter(choice.letters)))


def _qualified(answer: Answer) -> Reading | None:
    """f(x) = 2x for all x: the part before the condition, unless each of several parts has its own."""
    if answer.expr is not None or "\\begin" in answer.text:
        return None
    text = _UNWRAP.sub(r" \1 ", answer.text)
    found = _QUALIFIER.search(text) or _UNIVERSAL.search(text)
    if not found or not found.start() or _OTHER_CASE.search(text) or _QUALIFIER.search(text, found.end()):
        return None
    core = text[: found.start()].rstrip(" ,;(")
    if (tree := read_answer(core).expr) is None:
        return None
    letters = (
        symbols(tree) & set(text[found.start() :].split()) if _CONSTANT.search(text, found.start()) else ()
    )
    if len(letters) == 1 and "C" not in core:
        return Reading("constant", _with_constant(core, next(iter(letters))), "")
    return Reading("condition", core, text[found.start() :])


def _with_constant(core: str, letter: str) -> str:
    """f(x) = cx with the letter that answers.constants takes for a constant: f(x) = Cx."""
    return re.sub(
        r"(?<![A-Za-z\\])[A-Za-z]+",
        lambda word: word[0] if word[0] in FUNCTIONS else word[0].replace(letter, "C"),
        core,
    )


def _on_domain(answer: Answer) -> Reading | None:
    r"""f(x) = 1/(x - 1), x \ne 1: the part before the numbers that its letter may be."""
    has_index = answer.expr is not None and answer.expr.head == "lambda" and answer.expr.name in ("Z", "N")
    match = None if has_index or not re.search(r"=|\\in|\\ne", answer.text) else _DOMAIN.match(answer.text)
    if match is None or not match[1] or not (core := read_answer(match[1]).expr):
        return None
    if (
        "=" not in match[1]
        and "\\in" not in match[2]
        and (not is_value(core) or match[2][0] not in symbols(core))
    ):
        return None
    if re.search(r"[<>]|\\[lg]e\b", match[1]) and "\\in" not in match[2]:
        return None
    return Reading("condition", match[1], match[2])


def _without_aside(answer: Answer) -> Reading | None:
    """2.33 (rounded), 18 (dollars), 3/7 of the cake: the part before, with the unit if that is one."""
    text = _UNWRAP.sub(r" \1 ", answer.text).strip() if answer.expr is None else ""
    match = _ASIDE.match(text)
    if match is None or _NO_ASIDE.search(match[2] or ""):
        return None
    core, with_unit = match[1] or match[3], read_answer(f"{match[1]} {match[2]}") if match[1] else None
    if with_unit is not None and (stated := with_unit.read(read_quantity)) is not None and stated.unit:
        core = with_unit.raw
    is_read = read_answer(core).expr is not None or read_answer(core).read(read_quantity) is not None
    return Reading("aside", core, "") if is_read else None


def _with_unit(answer: Answer) -> Reading | None:
    r"""t \cos 8t \mathrm{ft}: a formula with its unit, which the grammar does not read."""
    if answer.expr is not None or "\\" not in answer.text or answer.read(named_quantity) is not None:
        return None
    match = _UNIT_AT_END.match(answer.text)
    if match is None:
        return None
    units = " ".join(_UNWRAP.findall(match[2])).replace("~", " ").split()
    core = read_answer(match[1]).expr
    if not units or core is None or any(unit_name(unit) is None for unit in units):
        return None
    return Reading("unit", match[1], " ".join(unit_name(unit) or "" for unit in units))


def _approximated(answer: Answer) -> Reading | None:
    r"""40/3 \approx 13.33 minutes: the exact value with the unit behind the decimal."""
    exact, sign, decimal = answer.text.partition("\\approx")
    match = _DECIMAL_WITH_UNIT.match(decimal)
    if answer.expr is not None or not sign or match is None:
        return None
    return Reading("approximation", f"{exact} {match[1]}", "")


def _unit_letter(answer: Answer) -> Reading | None:
    """10m, 5V: a number with a letter that may be its unit, although a product is read first."""
    stated = answer.read(read_quantity)
    if stated is None or stated.is_certain or not stated.value.is_number:
        return None
    match = _NUMBER_AND_LETTER.match(answer.text)
    return Reading("unit letter", f"{match[1]} \\text{{ {match[2]}}}", "") if match is not None else None


def _labelled(answer: Answer) -> Reading | None:
    r"""P(N_{2} = 1 | M) = (2/3)^2: what the last "=" states of a formula that the grammar does not read."""
    if answer.expr is not None or "=" not in answer.text:
        return None
    left, _, right = _LEAD.sub("", answer.text).rpartition("=")
    if re.search(r"[<>;]|\\(?:le|ge|ne|begin|text)\b|,\s", left) or len(_WORD.findall(left)) > 6:
        return None
    if left.count("(") != left.count(")") or left.count("{") != left.count("}"):
        return None
    is_read = read_answer(right).expr is not None
    return Reading("label", right, left) if is_read and left.strip() else None


def _led_in(answer: Answer) -> Reading | None:
    """only x = 0"""
    if answer.expr is not None:
        return None
    text = _UNWRAP.sub(r" \1 ", answer.text)
    match = _LEAD.match(text)
    if match is None or read_answer(text[match.end() :]).expr is None:
        return None
    return Reading("lead", text[match.end() :], "")


def _sentence(answer: Answer) -> Reading | None:
    """Adam loses $16."""
    if answer.expr is not None or "\\begin" in answer.raw:
        return None
    text = _UNWRAP.sub(r" \1 ", answer.raw.replace("\\$", "$"))
    stated = state(text)
    return Reading("sentence", stated, "") if stated and stated != text.strip() else None


_READINGS: tuple[Callable[[Answer], Reading | None], ...] = (
    _letter, _led_in, _approximated, _unit_letter, _qualified, _on_domain, _without_aside, _with_unit,
    _labelled, _sentence,
)  # fmt: skip
