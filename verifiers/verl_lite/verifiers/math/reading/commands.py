"""The LaTeX commands and functions of the grammar: fractions, roots, logarithms, matrices, floors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verl_lite.verifiers.math.expressions import Expr, Unreadable, call, neg, node, num, sym
from verl_lite.verifiers.math.reading.names import root

if TYPE_CHECKING:
    from verl_lite.verifiers.math.reading.parser import ExpressionParser

__all__ = ["command", "function"]

_MATRICES = frozenset("matrix pmatrix bmatrix Bmatrix array smallmatrix".split())
_DETERMINANTS = frozenset(("vmatrix",))
_CASES = frozenset("cases aligned align gathered split".split())


def command(parser: ExpressionParser, name: str) -> Expr:
    if name == "frac":
        top = parser.argument()
        return node("div", top, parser.argument())
    if name in ("sqrt", "usqrt"):
        return _root(parser, unicode=name == "usqrt")
    if name == "binom":
        top = parser.argument()
        return node("binom", top, parser.argument())
    if name in ("lfloor", "lceil"):
        inner = parser.expression()
        parser.expect("rfloor" if name == "lfloor" else "rceil")
        return call("floor" if name == "lfloor" else "ceil", inner)
    if name == "vert":
        return parser.absolute("vert")
    if name == "pm":
        return node("pm", num(0), parser.expression(10), value="+-")
    if name == "mp":
        return node("pm", num(0), parser.expression(10), value="-+")
    if name == "emptyset":
        return node("named", value="empty")
    if name.startswith("board"):
        return _number_set(parser, name[5:])
    if name == "langle":
        items, _ = parser.items(("rangle",))
        return node("tuple", *items)
    if name == "lbrace":
        return parser.braces()
    if name == "begin":
        return _environment(parser)
    if name in ("overline", "bar"):
        return call("conj", parser.argument())
    if name in ("angle", "triangle"):
        return _figure(parser, name)
    if name == "neg":
        raise Unreadable("a logical formula")
    if name in ("pmod", "bmod", "mod"):
        raise Unreadable("a congruence")
    raise Unreadable(f"the command \\{name}")


def _number_set(parser: ExpressionParser, letter: str) -> Expr:
    if letter not in "RZNQC":
        raise Unreadable(f"the set {letter}")
    if parser.at("^") and parser.peek(1).text in ("+", "-"):
        parser.take()
        return node("named", value=letter + parser.take().text)
    if parser.at("_") and parser.peek(1).text == "+":
        parser.position += 2
        return node("named", value=letter + "+")
    return node("named", value=letter)


def _figure(parser: ExpressionParser, name: str) -> Expr:
    """`\\angle ABC`: a name, used on the left of an equation."""
    token = parser.take()
    if token.kind not in ("word", "num"):
        raise Unreadable(f"{name} without a name")
    return sym(f"{name} {token.text}")


def _root(parser: ExpressionParser, *, unicode: bool) -> Expr:
    degree = num(2)
    if parser.accept("["):
        degree = parser.expression()
        parser.expect("]")
    if parser.peek().kind == "num" or (
        unicode and parser.at("(")
    ):  # \sqrt12 and √12 are both meant as the root of twelve
        radicand = parser.prefix()
    else:
        radicand = parser.argument()
    return root(degree, radicand)


def function(parser: ExpressionParser, name: str) -> Expr:
    """sin, log_2, sin^2, sin^{-1}, gcd(a, b): name, exponent and base, then the argument."""
    exponent = base = None
    while parser.at("^", "_"):
        if parser.take().text == "_":
            base = parser.argument()
        else:
            exponent = parser.group() if parser.at("{") else _sign_and_factor(parser)
    if exponent is not None and (inverse := parser.inverse_of(name, exponent)):
        name, exponent = inverse, None
    arguments = _arguments(parser, name)
    if base is not None:
        if name != "log":
            raise Unreadable(f"a subscript on {name}")
        arguments.append(base)
    result = _applied(name, arguments)
    return result if exponent is None else node("pow", result, exponent)


def _sign_and_factor(parser: ExpressionParser) -> Expr:
    if parser.accept("-"):
        return neg(parser.argument())
    return parser.argument()


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
    factors = parser.expression(25 - 1) if not parser.at("-") else parser.expression(20)
    while _continues(parser):
        factors = node("mul", factors, parser.expression(24))
    return [factors]


def _continues(parser: ExpressionParser) -> bool:
    """Whether a factor follows that belongs to the argument: `\\sin 2x`, not `\\sin x \\cos x`."""
    token = parser.peek()
    if token.kind == "word":
        return len(token.text) <= 2 and not parser.is_connective(token)
    if token.kind == "cmd":
        return token.text in (
            "pi",
            "theta",
            "alpha",
            "beta",
            "phi",
            "omega",
            "sqrt",
            "usqrt",
            "frac",
            "lambda",
        )
    return False


def _applied(name: str, arguments: list[Expr]) -> Expr:
    arity = {"gcd": 0, "lcm": 0, "max": 0, "min": 0, "binom": 2, "log": 0, "det": 0}.get(name, 1)
    if arity and len(arguments) != arity:
        raise Unreadable(f"{name} with {len(arguments)} arguments")
    if name == "abs":
        return node("abs", arguments[0])
    if name == "fact":
        return node("fact", arguments[0])
    if name == "binom":
        return node("binom", *arguments)
    if name == "cbrt":
        return root(num(3), arguments[0])
    if name == "log10":
        return call("log", arguments[0], num(10))
    if name == "log2":
        return call("log", arguments[0], num(2))
    if name == "log" and len(arguments) > 2:
        raise Unreadable("log with more than two arguments")
    return call(name, *arguments)


def _environment(parser: ExpressionParser) -> Expr:
    """Matrices, vectors, and `cases` as a list of its lines."""
    name = _braced_word(parser)
    if name not in _MATRICES | _CASES | _DETERMINANTS:
        raise Unreadable(f"the environment {name}")
    if name == "array" and parser.at("{"):
        while not parser.accept("}"):
            if parser.is_done():
                raise Unreadable("an unfinished array")
            parser.take()
    rows: list[list[Expr]] = [[]]
    while not parser.at("end"):
        if parser.accept("\\\\"):
            rows.append([])
        elif not parser.accept("&"):
            rows[-1].append(parser.item())
            if not parser.at("&", "\\\\", "end"):
                parser.expect(",", "&", "\\\\", "end")
    parser.take()
    if _braced_word(parser) != name:
        raise Unreadable("environments that do not match")
    filled = [row for row in rows if row]
    if not filled:
        raise Unreadable("an empty matrix")
    if name in _CASES:
        return node("list", *(item for row in filled for item in row))
    if len({len(row) for row in filled}) != 1:
        raise Unreadable("a matrix with rows of different lengths")
    if name in _DETERMINANTS:
        return _determinant(filled)
    return node("matrix", *(node("row", *row) for row in filled))


def _determinant(rows: list[list[Expr]]) -> Expr:
    """Laplace's expansion along the first row, for up to four rows."""
    if len(rows) != len(rows[0]) or len(rows) > 4:
        raise Unreadable("a determinant of this shape")
    if len(rows) == 1:
        return rows[0][0]
    total: Expr = num(0)
    for column, entry in enumerate(rows[0]):
        minor = [row[:column] + row[column + 1 :] for row in rows[1:]]
        term = node("mul", entry, _determinant(minor))
        total = node("add", total, term if column % 2 == 0 else neg(term))
    return total


def _braced_word(parser: ExpressionParser) -> str:
    parser.expect("{")
    name = parser.take().text
    parser.accept("*")
    parser.expect("}")
    return name
