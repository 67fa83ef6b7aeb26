"""Sympy's part, run only inside the worker processes: proofs the normal forms cannot give.

Trees arrive already capped. Nothing is parsed from text, nothing is evaluated by name.
"""

from collections.abc import Callable
from typing import Any

import sympy
from sympy import Integer, Rational, S, Symbol

from verl_lite.verifiers.math.expressions import Expr, symbols as expr_symbols


class Refused(ValueError):
    """A tree that sympy must not see: too high a power, too large a factorial, an unknown head."""


def equal(left: Expr, right: Expr) -> bool | None:
    """True where sympy proves left = right (symbols positive), False where it disproves it, else None."""
    symbols: dict[str, Any] = {}
    difference = _convert(left, symbols) - _convert(right, symbols)
    if difference == 0:
        return True
    for simplify in _strategies(bool(symbols)):
        reduced = simplify(difference)
        if reduced == 0:
            return True
        if reduced.is_number and reduced.is_zero is False:
            return False
    if not symbols:
        zero = difference.equals(0)
        return None if zero is None else bool(zero)
    return None


def _strategies(has_symbols: bool) -> list[Callable[[Any], Any]]:
    if has_symbols:
        return [
            sympy.together,
            lambda e: sympy.radsimp(sympy.together(e)),
            lambda e: sympy.powsimp(
                sympy.powdenest(sympy.expand_log(sympy.expand(e), force=True), force=True)
            ),
            sympy.trigsimp,
            sympy.simplify,
            lambda e: sympy.simplify(e.rewrite(sympy.exp)),
        ]
    denested = sympy.sqrtdenest
    return [denested, lambda e: sympy.expand(sympy.radsimp(denested(e))), sympy.simplify]


def same_solutions(left: Expr, right: Expr, name: str) -> bool | None:
    """Whether two expressions in one unknown vanish at the same real points; None where they have none."""
    symbol = Symbol(name, real=True)
    table = {name: symbol}
    solved = [sympy.solveset(_convert(side, table), symbol, S.Reals) for side in (left, right)]
    if any(one is S.EmptySet or one is S.Reals for one in solved):
        return None if solved[0] == solved[1] else False  # all such equations have these solutions
    if any(not isinstance(one, sympy.FiniteSet) for one in solved):
        return True if solved[0] == solved[1] else None
    if len(solved[0]) != len(solved[1]):
        return False
    ordered = [sorted(one, key=lambda value: float(value)) for one in solved]
    return all(sympy.simplify(a - b) == 0 for a, b in zip(*ordered, strict=True))


def solve_inequality(difference: Expr, relation: str, name: str) -> list[list[Any]] | None:
    """The real solutions of `difference relation 0` as [low, low_closed, high, high_closed] rows.

    Ends are given as strings of sympy's own printing of exact numbers ("oo" for infinity).
    """
    symbol = Symbol(name, real=True)
    expression = _convert(difference, {name: symbol})
    condition = {"<": expression < 0, "<=": expression <= 0, ">": expression > 0, ">=": expression >= 0}[
        relation
    ]
    if condition in (True, S.true):
        return [["-oo", False, "oo", False]]
    if condition in (False, S.false):
        return []
    found = sympy.solve_univariate_inequality(condition, symbol, relational=False, domain=S.Reals)
    return _rows(found)


def _rows(found: Any) -> list[list[Any]] | None:
    if found is S.EmptySet:
        return []
    if isinstance(found, sympy.Interval):
        low, high = sympy.latex(sympy.nsimplify(found.start)), sympy.latex(sympy.nsimplify(found.end))
        return [[low, not found.left_open, high, not found.right_open]]
    if isinstance(found, sympy.FiniteSet):
        return [[sympy.latex(value), True, sympy.latex(value), True] for value in found]
    if isinstance(found, sympy.Union):
        parts = [_rows(part) for part in found.args]
        return None if any(part is None for part in parts) else [row for part in parts for row in part or ()]
    return None


# trees to sympy


def _convert(expr: Expr, symbols: dict[str, Any]) -> Any:
    head = expr.head
    if head == "num":
        return Rational(expr.fraction.numerator, expr.fraction.denominator)
    if head == "sym":
        return symbols.setdefault(expr.name, Symbol(f"v{len(symbols)}", positive=True))
    if head == "const":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "inf": sympy.oo}[expr.name]
    if head == "bound":
        return symbols.setdefault(f"bound {expr.name}", Symbol(f"b{expr.name}", integer=True))
    if head == "big":
        return _big(expr, symbols)
    args = [_convert(arg, symbols) for arg in expr.args]
    if head == "func":
        return _function(expr.name, args)
    handler = _HEADS.get(head)
    if handler is None:
        raise Refused(head)
    return handler(*args)


def _big(expr: Expr, symbols: dict[str, Any]) -> Any:
    kind, number = expr.name.split(" ")
    is_integer = kind in ("sum", "prod")
    variable = Symbol(f"b{number}", integer=True) if is_integer else Symbol(f"b{number}", real=True)
    for symbol in sorted(expr_symbols(expr)):
        symbols.setdefault(symbol, Symbol(f"v{len(symbols)}", positive=True))
    body, low, high = (_convert(arg, symbols | {f"bound {number}": variable}) for arg in expr.args)
    if kind == "lim":
        return sympy.limit(body, variable, low)
    found = {"sum": sympy.summation, "prod": sympy.product, "int": sympy.integrate}[kind](
        body, (variable, low, high)
    )
    if found.has(sympy.Sum, sympy.Product, sympy.Integral):
        raise Refused(f"a {kind} without a closed form")
    return found


def _power(base: Any, exponent: Any) -> Any:
    if exponent.is_number:
        size = exponent.evalf(5) if not exponent.is_Rational else exponent
        if not size.is_real or abs(size) > 2000 or (not base.is_number and abs(size) > 100):
            raise Refused("too high a power")
        if base.is_Rational and exponent.is_Integer and abs(exponent) * Integer(base.p).bit_length() > 20_000:
            raise Refused("a power of too many digits")
    if base.is_negative and exponent.is_Rational and exponent.q % 2 == 1 and exponent.q > 1:
        return (-1) ** exponent.p * (-base) ** exponent  # the real odd root
    return base**exponent


def _factorial(argument: Any) -> Any:
    if argument.is_number and not (argument.is_Integer and 0 <= argument <= 500):
        raise Refused("a large factorial")
    return sympy.factorial(argument)


def _binomial(top: Any, bottom: Any) -> Any:
    if top.is_number and not (top.is_Integer and 0 <= top <= 2000):
        raise Refused("a large binomial")
    return sympy.binomial(top, bottom)


def _function(name: str, args: list[Any]) -> Any:
    if name == "root":
        if not args[1].is_Integer or not 2 <= args[1] <= 1000:
            raise Refused("a root without a fixed degree")
        return _power(args[0], Rational(1, args[1]))
    if name == "log" and len(args) == 2:
        return sympy.log(args[0]) / sympy.log(args[1])
    function = _FUNCTIONS.get(name)
    if function is None:
        raise Refused(name)
    return function(*args)


_HEADS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "neg": lambda a: -a,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": _power,
    "percent": lambda a: a / 100,
    "deg": lambda a: a * sympy.pi / 180,
    "fact": _factorial,
    "binom": _binomial,
    "abs": sympy.Abs,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(sympy, name)
    for name in (
        "sin cos tan cot sec csc asin acos atan acot asec acsc sinh cosh tanh coth sech csch asinh acosh "
        "atanh exp sqrt floor gcd lcm re im"
    ).split()
} | {
    "mod": sympy.Mod, "fact2": sympy.factorial2,
    "ln": sympy.log, "log": sympy.log, "ceil": sympy.ceiling, "max": sympy.Max, "min": sympy.Min,
    "sgn": sympy.sign, "conj": sympy.conjugate,
}  # fmt: skip

QUESTIONS: dict[str, Callable[..., Any]] = {
    "equal": equal,
    "same_solutions": same_solutions,
    "solve_inequality": solve_inequality,
}
