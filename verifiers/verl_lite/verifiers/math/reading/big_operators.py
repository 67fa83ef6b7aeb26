r"""Sums, products, integrals and limits: `\sum_{k=1}^{n} k`. Their variable is bound."""

from verl_lite.verifiers.math.expressions import INFINITY, Expr, Unreadable, bound, node, num, replace, walk
from verl_lite.verifiers.math.reading.parser import SUM, ExpressionParser

_ARROWS = ("to", "->", "rightarrow")


def read_big(parser: ExpressionParser, kind: str) -> Expr:
    """The "big" (body, low, high) of a sum, a product or a definite integral, read after its command."""
    low = high = name = None
    while parser.at("_", "^"):
        if parser.take().text == "^":
            high = parser.argument()
        elif kind == "int":
            low = parser.argument()
        else:
            name, low, is_endless = _start(parser)
            high = INFINITY if is_endless and high is None else high
    if low is None or high is None:
        raise Unreadable(f"a {kind} without both ends")
    body = parser.expression(SUM)
    if name is None:
        body, name = _integrand(body)
    return _closed(kind, body, name, low, high)


def read_limit(parser: ExpressionParser) -> Expr:
    parser.expect("_")
    parser.expect("{")
    name = parser.prefix()
    if name.head != "sym" or not parser.accept(*_ARROWS):
        raise Unreadable("a limit without a variable")
    target = parser.expression()
    parser.expect("}")
    body = parser.expression(SUM)
    return _closed("lim", body, name, target, target)


def _start(parser: ExpressionParser) -> tuple[Expr, Expr, bool]:
    r"""The variable, where it starts, and whether it has no end: k=1 has one, n \ge 1 has none."""
    parser.expect("{")
    name = parser.prefix()
    if name.head == "const" and name.name == "i":
        name = Expr("sym", (), "i")
    if name.head != "sym":
        raise Unreadable("a sum without a variable")
    is_endless = parser.expect("=", "ge") == "ge"
    low = parser.expression()
    parser.expect("}")
    return name, low, is_endless


def _integrand(product: Expr) -> tuple[Expr, Expr]:
    """x^2 d x as (x^2, x)."""
    if product.head == "mul" and product.args[1].head == "sym":
        rest, name = product.args
        if rest == Expr("sym", (), "d"):
            return num(1), name
        if rest.head == "mul" and rest.args[1] == Expr("sym", (), "d"):
            return rest.args[0], name
    raise Unreadable("an integral without its variable")


def _closed(kind: str, body: Expr, name: Expr, low: Expr, high: Expr) -> Expr:
    """Variables are numbered from the innermost, so that renaming one changes nothing."""
    inside = sum(part.head == "big" for part in walk(body))
    letter_i = Expr("const", (), "i")
    variable = bound(inside)
    body = replace(body, name, variable)
    if name.name == "i":
        body = replace(body, letter_i, variable)
    return node("big", body, low, high, value=f"{kind} {inside}")
