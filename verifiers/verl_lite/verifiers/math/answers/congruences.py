"""Congruences: n = 3 (mod 5)."""

from collections.abc import Sequence

from verl_lite.verifiers.math.algebra.normal_form import exact_value
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, Unreadable, neg, node, symbols
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


def compare(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    """The same modulus, and sides that differ by a multiple of it: n = 8 (mod 5) is n = 3 (mod 5)."""
    if reference.head != "congruence":
        return None
    if response.head != "congruence" or not comparer.same(reference.args[2], response.args[2]):
        return False
    modulus = exact_value(reference.args[2])
    ours, theirs = (node("add", side.args[0], neg(side.args[1])) for side in (reference, response))
    if symbols(ours) != symbols(theirs) or not modulus:
        return False
    apart = exact_value(node("add", ours, neg(theirs)))
    return apart is not None and (apart / modulus).denominator == 1
