"""Numbers that the parser puts together from several: mixed numbers, digits in a base, C(5, 2)."""

from collections.abc import Sequence
from fractions import Fraction

from verl_lite.verifiers.math.expressions import Expr, Unreadable, node, num, sym

_BASE_NAMES = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16",
}  # fmt: skip


def in_base(digits: str, base: str) -> Expr:
    """Digits with their subscript, "2" or "two". Raises Unreadable for digits with a point, or no base."""
    base = _BASE_NAMES.get(base, base)
    if not base.isdigit() or not 2 <= int(base[:3]) <= 36 or "." in digits:
        raise Unreadable("a subscript on a number")
    return node("base", sym(digits.upper()), value=base)


def ways(letter: str, counts: Sequence[Expr]) -> Expr | None:
    """C(5, 2), P(5, 2): combinations and arrangements of whole numbers; None for anything else."""
    if letter not in ("C", "A", "P") or len(counts) != 2 or not all(count.is_number for count in counts):
        return None
    total, chosen = (count.fraction for count in counts)
    if total.denominator != 1 or chosen.denominator != 1 or not 0 <= chosen <= total or total < 2:
        return None
    chosen_sets = node("binom", *counts)
    return chosen_sets if letter == "C" else node("mul", chosen_sets, node("fact", counts[1]))


def is_fraction(expr: Expr) -> bool:
    """Whether `expr` is a quotient of two positive whole numbers, as in a mixed number."""
    if expr.head != "div":
        return False
    top, bottom = expr.args
    if not (top.is_number and bottom.is_number and top.places < 0 and bottom.places < 0):
        return False
    is_whole = top.fraction.denominator == bottom.fraction.denominator == 1
    return is_whole and top.fraction > 0 and bottom.fraction > 0


def mixed(whole: Expr, fraction: Expr) -> Expr:
    """2 1/3 as one number; the sign of the whole part is that of both."""
    top, bottom = fraction.args
    part = Fraction(int(top.fraction), int(bottom.fraction))
    return num(whole.fraction - part if whole.fraction < 0 else whole.fraction + part)
