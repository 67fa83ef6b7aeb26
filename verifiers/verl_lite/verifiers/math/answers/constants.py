r"""Constants of integration: x^2 + C is x^2 + c, and C_1 e^x + C_2 e^{-x} is A e^x + B e^{-x}."""

import re
from itertools import pairwise, permutations

from verl_lite.verifiers.math.algebra import numeric
from verl_lite.verifiers.math.algebra.normal_form import exact_value
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, neg, node, num, substitute, sym, symbols

MAX_CONSTANTS = 3
_MARKED = re.compile(r"(?:C|K|[Cc]_?[0-9])\Z")  # what a reference calls its constants
_ANY = re.compile(r"[ABCDKckab]\Z|[A-Dc]_?[0-9]\Z")


def same_family(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    """Whether two formulas are the same for all values of the constants of the reference."""
    ours = sorted(name for name in symbols(reference) if _MARKED.match(name))
    variables = symbols(reference).difference(ours)
    theirs = sorted(symbols(response) - variables)
    if not ours or not variables or len(ours) != len(theirs) or len(ours) > MAX_CONSTANTS:
        return False
    if not variables <= symbols(response) or not all(map(_ANY.match, theirs)):
        return False
    for names in permutations(ours):
        renamed = substitute(response, {old: sym(new) for old, new in zip(theirs, names, strict=True)})
        if renamed != response and comparer.same(reference, renamed):
            return True
    return len(ours) == 1 and _apart_by_a_constant(comparer, (reference, ours[0]), (response, theirs[0]))


def _apart_by_a_constant(comparer: Comparer, reference: tuple[Expr, str], response: tuple[Expr, str]) -> bool:
    """Two antiderivatives: functions that differ by a number, each with a multiple of its constant added."""
    if not _is_added(*reference) or not _is_added(*response):
        return False
    without = [substitute(formula, {constant: num(0)}) for formula, constant in (reference, response)]
    apart = node("add", without[0], neg(without[1]))
    for point in (1, 2, 3):
        there = substitute(apart, dict.fromkeys(symbols(apart), num(point)))
        if numeric.approximate(there) is not None:
            return comparer.same(apart, there)
    return False


def _is_added(formula: Expr, constant: str) -> bool:
    """Whether the constant enters as a number times itself, added to the rest."""
    at = [substitute(formula, {constant: num(value)}) for value in (0, 1, 2)]
    steps = [exact_value(node("add", later, neg(earlier))) for earlier, later in pairwise(at)]
    return bool(steps[0]) and steps[0] == steps[1]
