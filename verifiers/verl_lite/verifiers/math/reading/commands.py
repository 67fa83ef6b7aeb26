"""The LaTeX commands and functions of expressions: fractions, roots, logarithms, floors."""

from collections.abc import Callable
from functools import partial

from verl_lite.verifiers.math.expressions import Expr, Unreadable, call, neg, node, num, sym
from verl_lite.verifiers.math.reading.big_operators import read_big, read_limit
from verl_lite.verifiers.math.reading.names import CONSTANTS, FUNCTIONS, INVERSES, constant, root
from verl_lite.verifiers.math.reading.parser import ExpressionParser
from verl_lite.verifiers.math.reading.tokens import tokenize

_FACTOR_COMMANDS = frozenset("pi theta alpha beta phi omega sqrt usqrt frac lambda".split())
_ARITIES = {"gcd": 0, "lcm": 0, "max": 0, "min": 0, "binom": 2, "log": 0, "det": 0}  # 0: any number


def _pair(parser: ExpressionParser, head: str) -> Expr:
    top = parser.argument()
    return node(head, top, parser.argument())


def _binomial(parser: ExpressionParser) -> Expr:
    return _function(parser, "binom") if parser.at("(") else _pair(parser, "binom")


def _rounded(parser: ExpressionParser, name: str) -> Expr:
    inner = parser.expression()
    parser.expect(f"r{name}")
    return call(name, inner)


def _figure(parser: ExpressionParser, name: str) -> Expr:
    r"""`\angle ABC`: a name, used on the left of an equation."""
    token = parser.take()
    if token.kind not in ("word", "num"):
        raise Unreadable(f"{name} without a name")
    return sym(f"{name} {token.text}")


def refused(parser: ExpressionParser, what: str) -> Expr:
    raise Unreadable(what)


def _root(parser: ExpressionParser, *, unicode: bool) -> Expr:
    degree = num(2)
    if parser.accept("["):
        degree = parser.expression()
        parser.expect("]")
    # \sqrt12 and √12 are both meant as the root of twelve
    takes_all = parser.peek().kind == "num" or (unicode and parser.at("("))
    return root(degree, parser.prefix() if takes_all else parser.argument())


def _function(parser: ExpressionParser, name: str) -> Expr:
    """sin, log_2, sin^2, sin^{-1}, gcd(a, b): name, exponent and base, then the argument."""
    if name in ("max", "min") and parser.at("="):
        return sym(name)  # max = 5
    exponent = base = None
    while parser.at("^", "_"):
        if parser.take().text == "_":
            base = parser.argument()
        else:
            is_negative = parser.accept("-")
            exponent = neg(parser.argument()) if is_negative else parser.argument()
    if exponent == num(-1) and name in INVERSES:
        name, exponent = INVERSES[name], None
    arguments = _arguments(parser, name)
    if base is not None:
        if name != "log":
            raise Unreadable(f"a subscript on {name}")
        arguments.append(base)
    result = _applied(name, arguments)
    return result if exponent is None else node("pow", result, exponent)


def _arguments(parser: ExpressionParser, name: str) -> list[Expr]:
    if parser.at("("):
        parser.take()
        items, _ = parser.items((")",))
        if not items:
            raise Unreadable(f"{name} of nothing")
        return items
    if name in ("sqrt", "cbrt"):
        return [parser.prefix()]
    if parser.at("{"):
        return [parser.group()]
    factors = parser.expression(20 if parser.at("-") else 24)
    while _continues(parser):
        factors = node("mul", factors, parser.expression(24))
    return [factors]


def _continues(parser: ExpressionParser) -> bool:
    """Whether a factor follows that belongs to the argument: `\\sin 2x`, not `\\sin x \\cos x`."""
    token = parser.peek()
    if token.kind == "word":
        return len(token.text) <= 2 and not parser.is_connective(token)
    return token.kind == "cmd" and token.text in _FACTOR_COMMANDS


def _applied(name: str, arguments: list[Expr]) -> Expr:
    arity = _ARITIES.get(name, 1)
    if arity and len(arguments) != arity:
        raise Unreadable(f"{name} with {len(arguments)} arguments")
    if name in ("abs", "fact", "binom"):
        return node(name, *arguments)
    if name == "cbrt":
        return root(num(3), arguments[0])
    if name == "cis":
        return node("add", call("cos", *arguments), node("mul", constant("i"), call("sin", *arguments)))
    if name in ("log10", "log2"):
        return call("log", arguments[0], num(int(name[3:])))
    if name == "log" and len(arguments) > 2:
        raise Unreadable("log with more than two arguments")
    return call(name, *arguments)


COMMANDS: dict[str, Callable[[ExpressionParser], Expr]] = {
    **{name: partial(_function, name=function) for name, function in FUNCTIONS.items()},
    **{name: partial(lambda _, value: value, value=constant(name)) for name in CONSTANTS},
    "frac": partial(_pair, head="div"),
    "binom": _binomial,
    "sqrt": partial(_root, unicode=False),
    "usqrt": partial(_root, unicode=True),
    "lfloor": partial(_rounded, name="floor"),
    "lceil": partial(_rounded, name="ceil"),
    "vert": lambda parser: parser.absolute("vert"),
    "overline": lambda parser: call("conj", parser.argument()),
    "bar": lambda parser: call("conj", parser.argument()),
    "sum": partial(read_big, kind="sum"),
    "prod": partial(read_big, kind="prod"),
    "int": partial(read_big, kind="int"),
    "lim": read_limit,
    "angle": partial(_figure, name="angle"),
    "triangle": partial(_figure, name="triangle"),
    "neg": partial(refused, what="a logical formula"),
}


class _Parser(ExpressionParser):
    commands = COMMANDS


def parse_expression(text: str) -> Expr | Unreadable:
    """The tree of one LaTeX expression, or the Unreadable that says why there is none."""
    try:
        parser = _Parser(tokenize(text))
        tree = parser.expression()
        return tree if parser.is_done() else Unreadable(f"unexpected {parser.peek().text!r}")
    except Unreadable as reason:
        return reason
