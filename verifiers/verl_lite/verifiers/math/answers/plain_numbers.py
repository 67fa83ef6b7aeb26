"""The most common answers, read by one regular expression: 42, -1,234.5, 3/4, \\frac{3}{4}.

They skip the grammar: a verdict over two of them costs microseconds.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from verl_lite.verifiers.math.comparer import Decision
from verl_lite.verifiers.verdict import Outcome

# Gaps are possessive: splitting a run of blanks among several of them would take cubic time.
_PLAIN = re.compile(
    r"\s*+(?:\$\s*+)?+([+-]?)\s*+(?:"
    r"([0-9]{1,18}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,5})(?:\.([0-9]{1,15}))?"
    r"|\\[dt]?frac\s*+\{\s*+([0-9]{1,18})\s*+\}\s*+\{\s*+([0-9]{1,18})\s*+\}"
    r"|([0-9]{1,18})\s*+/\s*+([0-9]{1,18})"
    r")\s*+(?:\$\s*+)?+(?:\.\s*+)?+\Z"
)


class PlainNumber(NamedTuple):
    """top / bottom exactly; `is_decimal` says that it was written with a decimal point."""

    top: int
    bottom: int
    is_decimal: bool

    def equals(self, other: "PlainNumber") -> bool:
        return self.top * other.bottom == other.top * self.bottom


_SAME_NUMBER = Decision(Outcome.CORRECT, "number")
_ANOTHER_NUMBER = Decision(Outcome.WRONG, "", "another number")


def plain_number(text: str) -> PlainNumber | None:
    r"""The number that `text` is; None for anything that needs the grammar.

    >>> plain_number("-1,234.50")
    PlainNumber(top=-123450, bottom=100, is_decimal=True)
    """
    match = _PLAIN.match(text)
    if match is None:
        return None
    sign, whole, decimals, top, bottom, plain_top, plain_bottom = match.groups()
    if whole is not None:
        if "," in whole:
            whole = whole.replace(",", "")
        if decimals is None:
            return PlainNumber(-int(whole) if sign == "-" else int(whole), 1, False)
        scaled = int(whole + decimals)
        return PlainNumber(-scaled if sign == "-" else scaled, 10 ** len(decimals), True)
    above, below = int(top or plain_top), int(bottom or plain_bottom)
    if below == 0:
        return None
    return PlainNumber(-above if sign == "-" else above, below, False)


@lru_cache(maxsize=65536)
def plain_reference(text: str) -> PlainNumber | None:
    """`plain_number`, cached: a reference is met once per response of its group."""
    return plain_number(text)


def compare_plain(
    wanted: PlainNumber, answer: str, rel_tol: float, *, computed: bool = False
) -> Decision | None:
    """The decision over two plain numbers; None where it takes more than exact arithmetic.

    With `computed`, quotients are left to `left_undone`.
    """
    given = plain_number(answer) if len(answer) <= 100 else None
    if given is None or (computed and given.bottom != 1 and not given.is_decimal):
        return None
    if given.equals(wanted):
        return _SAME_NUMBER
    if (given.is_decimal or wanted.is_decimal) and not _is_far(given, wanted, rel_tol):
        return None
    return _ANOTHER_NUMBER


def _is_far(given: PlainNumber, wanted: PlainNumber, rel_tol: float) -> bool:
    """Beyond what any rounding of a decimal forgives: half of one, and twice the tolerance."""
    gap = abs(given.top * wanted.bottom - wanted.top * given.bottom)  # over both bottoms
    return 2 * gap > given.bottom * wanted.bottom and gap > 2 * rel_tol * abs(wanted.top) * given.bottom
