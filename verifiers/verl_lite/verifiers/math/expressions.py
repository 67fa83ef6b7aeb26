"""The small, safe syntax tree in which everything is compared. Building one evaluates nothing.

heads of expressions
    num      value: Fraction; `places` decimals as written (-1: not a decimal)
    sym      value: name            const   value: pi | e | i | inf
    add, mul, pow, neg, div         pm      (a, b): a plus or minus b; value "+-" or "-+"
    func     value: sin, ln, ...    call    value: f, with arguments (an unknown function)
    fact, binom, abs, percent, deg, base (value: the base; args: digits as sym)
    big      value: sum | prod | int | lim and the number of its variable; args: body, low, high
    bound    value: the number of such a variable
heads of answers
    tuple, list, set, matrix (rows), row, interval (value: "[]", "[)", "(]", "()")
    rel      value: = < <= > >= != ~ in notin
    and, or, union, intersect, minus, named (value: R, Z, N, Q, C, empty)
    lambda   value: name or ""; args: parameters..., body
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

EXPRESSION_HEADS = frozenset(
    "num sym const add neg mul div pow percent deg func call fact binom abs base big bound".split()
)


class Unreadable(ValueError):
    """Text that the parser cannot read, or that is beyond its limits."""


@dataclass(frozen=True, slots=True)
class Expr:
    head: str
    args: tuple["Expr", ...] = ()
    value: Fraction | str | None = None
    places: int = -1

    @property
    def is_number(self) -> bool:
        return self.head == "num"

    @property
    def name(self) -> str:
        return self.value if isinstance(self.value, str) else ""

    @property
    def fraction(self) -> Fraction:
        assert isinstance(self.value, Fraction), self.head
        return self.value


def is_value(expr: Expr) -> bool:
    """Whether `expr` is one expression (no set, relation, list, ...)."""
    return expr.head in EXPRESSION_HEADS


def num(value: int | Fraction, places: int = -1) -> Expr:
    return Expr("num", (), Fraction(value), places)


def sym(name: str) -> Expr:
    return Expr("sym", (), name)


def node(head: str, *args: Expr, value: str | None = None) -> Expr:
    return Expr(head, args, value)


def call(name: str, *args: Expr) -> Expr:
    return Expr("func", args, name)


def neg(expr: Expr) -> Expr:
    if expr.head == "num":
        return Expr("num", (), -expr.fraction, expr.places)
    return Expr("neg", (expr,))


def walk(expr: Expr) -> Iterator[Expr]:
    """`expr` and everything under it, parents first; iterative, so that depth needs no stack."""
    stack = [expr]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(current.args))


def substitute(expr: Expr, values: dict[str, Expr]) -> Expr:
    if expr.head == "sym":
        return values.get(expr.name, expr)
    if not expr.args:
        return expr
    return Expr(expr.head, tuple(substitute(arg, values) for arg in expr.args), expr.value, expr.places)


def bound(number: int) -> Expr:
    """The variable of a sum, product, integral or limit with `number` others inside it."""
    return Expr("bound", (), f"{number}")


INFINITY = Expr("const", (), "inf")


def replace(expr: Expr, old: Expr, new: Expr) -> Expr:
    if expr == old:
        return new
    if not expr.args:
        return expr
    return Expr(expr.head, tuple(replace(arg, old, new) for arg in expr.args), expr.value, expr.places)


def symbols(expr: Expr) -> frozenset[str]:
    return frozenset(part.name for part in parts_of(expr, "sym"))


def parts_of(expr: Expr, head: str) -> list[Expr]:
    """The parts of `expr` with a head: as `walk`, without a call per part."""
    stack, found = [expr], []
    for current in stack:
        if current.head == head:
            found.append(current)
        stack += current.args
    return found
