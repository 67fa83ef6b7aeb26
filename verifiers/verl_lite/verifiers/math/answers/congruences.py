"""Congruences: n = 3 (mod 5)."""

from collections.abc import Sequence
from fractions import Fraction

from verl_lite.verifiers.math.algebra.normal_form import exact_value
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import (
    Expr,
    Unreadable,
    is_value,
    neg,
    node,
    num,
    substitute,
    sym,
    symbols,
)
from verl_lite.verifiers.math.reading.parser import ExpressionParser

MODULO = ("pmod", "mod", "bmod")


def at_modulus(parser: ExpressionParser) -> bool:
    return parser.at(*MODULO) or (parser.at("(") and parser.peek(1).text in MODULO)


def read_congruence(parser: ExpressionParser, links: Sequence[Expr]) -> Expr:
    """The "congruence" (left, right, modulus) whose equation has been read."""
    in_brackets = parser.accept("(")
    parser.take()
    modulus = parser.argument() if parser.at("{") else parser.expression()
    if in_brackets:
        parser.expect(")")
    if len(links) != 1 or links[0].value != "=":
        raise Unreadable("a congruence of several parts")
    return node("congruence", *links[0].args, modulus)


def read_residue(parser: ExpressionParser, residue: Expr) -> Expr:
    """3 (mod 7): the congruence of an unknown without a name."""
    return read_congruence(parser, [node("rel", sym(""), residue, value="=")])


def compare(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    """The same modulus, and sides that differ by a multiple of it: n = 8 (mod 5) is n = 3 (mod 5)."""
    if reference.head != "congruence":
        modulus = exact_value(response.args[2]) if response.head == "congruence" else None
        return _same_class(response, reference, modulus) or None if modulus else None
    modulus = exact_value(reference.args[2])
    if response.head != "congruence":
        return _same_class(reference, response, modulus)
    if not comparer.same(reference.args[2], response.args[2]):
        return False
    if sym("") in (reference.args[0], response.args[0]) and reference.args[0].head == response.args[0].head:
        reference, response = (node("congruence", sym(""), *side.args[1:]) for side in (reference, response))
    ours, theirs = (node("add", side.args[0], neg(side.args[1])) for side in (reference, response))
    if symbols(ours) != symbols(theirs) or not modulus:
        return False
    apart = exact_value(node("add", ours, neg(theirs)))
    return apart is not None and (apart / modulus).denominator == 1


def _same_class(reference: Expr, response: Expr, modulus: Fraction | None) -> bool:
    """x = 7k + 3 for x = 3 (mod 7); the residue alone where the reference names no unknown."""
    residue = exact_value(reference.args[1])
    if residue is None or not modulus or reference.args[0].head != "sym":
        return False
    if is_value(response) and not symbols(response):
        return reference.args[0] == sym("") and exact_value(response) == residue
    is_stated = response.head in ("lambda", "rel") and response.value in ("=", "Z")
    body = response.args[-1] if is_stated else response
    names = symbols(body) if is_value(body) else frozenset()
    if len(names) != 1 or not names <= {"k", "m", "n", "t", "q", "l"}:
        return False
    start, second, third = (exact_value(substitute(body, dict.fromkeys(names, num(at)))) for at in (0, 1, 2))
    if start is None or second is None or third is None:
        return False
    is_line = third - second == second - start and abs(second - start) == abs(modulus)
    return is_line and ((start - residue) / modulus).denominator == 1
