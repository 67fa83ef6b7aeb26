"""Ratios: 3:4, 3 to 4, 1:2:3."""

from verl_lite.verifiers.math.answers.same_value import same_value
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, is_value, node
from verl_lite.verifiers.math.reading.parser import ExpressionParser


def at_ratio(parser: ExpressionParser) -> bool:
    if parser.peek().kind in ("word", "text") and parser.peek().text.strip() == "to":
        return parser.peek(1).kind == "num"
    return parser.at(":") and parser.peek(1).kind in ("num", "word", "cmd", "op")


def read_ratio(parser: ExpressionParser, first: Expr) -> Expr:
    """The "ratio" whose first part has been read."""
    parts = [first]
    while at_ratio(parser):
        parser.take()
        parts.append(parser.expression())
    if parser.accept("="):  # AB:BC = 2:3
        return read_ratio(parser, parser.expression())
    return node("ratio", *parts)


def compare(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    if reference.head != "ratio":
        return None
    given = response.args[1] if response.head == "rel" and response.value == "=" else response
    return same_ratio(comparer, reference, given)


def is_zero(part: Expr) -> bool:
    return part.is_number and part.fraction == 0


def same_ratio(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    """3:4 = 6:8 = 3/4: proportional parts in the same order. Either side may be the fraction."""
    if reference.head != "ratio":
        reference, response = response, reference
    if response.head != "ratio":
        if len(reference.args) != 2 or not is_value(response):
            return False
        return not is_zero(reference.args[1]) and same_value(comparer, node("div", *reference.args), response)
    if len(reference.args) != len(response.args):
        return False
    zeros = [[is_zero(part) for part in side.args] for side in (reference, response)]
    if any(map(any, zeros)):  # any two ratios to 0 are proportional
        return all(comparer.same(a, b) for a, b in zip(reference.args, response.args, strict=True))
    first, other = reference.args[0], response.args[0]
    return all(
        comparer.same(node("mul", a, other), node("mul", b, first))
        for a, b in zip(reference.args[1:], response.args[1:], strict=True)
    )
