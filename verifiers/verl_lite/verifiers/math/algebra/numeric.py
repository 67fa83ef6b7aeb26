"""Floating-point evaluation with a running error bound: enough to refute an equality, never to prove one.

Symbols are real. A real operation outside its domain (the logarithm of a negative number, an even
root of one) makes the point Undefined; odd roots of negative numbers are real.
"""

import cmath
import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from verl_lite.verifiers.math.expressions import INFINITY, Expr, symbols, walk

EPS = 4e-16
MAX_SUMMED = 40  # terms of one sum
HUGE = 1e150


class RealPoint(dict[str, float]):
    """A point at which the root of a negative number is undefined rather than imaginary."""


class Undefined(ArithmeticError):
    """No value at this point, or none that floats can hold."""


Bounded = tuple[complex, float]  # value, absolute error bound
Point = Mapping[str, float]


def approximate(expr: Expr) -> float | None:
    """The real value of a constant expression, None where it has none in floats."""
    if expr == INFINITY:
        return math.inf
    if expr.head == "neg" and expr.args[0] == INFINITY:
        return -math.inf
    try:
        value, error = evaluate(expr, {})
    except Undefined:
        return None
    is_real = abs(value.imag) <= error + EPS and error <= 1e-6 * (abs(value) + 1e-300) + 1e-12
    return value.real if is_real else None


def evaluate(expr: Expr, point: Point) -> Bounded:
    """(value, error bound) of `expr` with symbols from `point`; raises Undefined."""
    try:
        value, error = _HANDLERS[expr.head](expr, point)
    except (KeyError, OverflowError, ZeroDivisionError, ValueError, TypeError) as reason:
        raise Undefined(str(reason)) from None
    if not cmath.isfinite(value) or abs(value) > HUGE or not error < HUGE:
        raise Undefined("not finite")
    return value, error


def differs(left: Expr, right: Expr) -> bool | None:
    """True: shown to differ. False: agree wherever both have values. None: no point had both.

    Points have both signs. A point where one side is undefined or not real says nothing, unless
    the imaginary unit is written in either.
    """
    complex_allowed = any(part == Expr("const", (), "i") for side in (left, right) for part in walk(side))
    names = sorted(symbols(left) | symbols(right))
    seen = False
    real = bool(names) and not complex_allowed
    for point in sample_points(names):
        point = RealPoint(point) if real else point
        try:
            a, error_a = evaluate(left, point)
            b, error_b = evaluate(right, point)
        except Undefined:
            continue
        if names and not complex_allowed and max(abs(a.imag) - error_a, abs(b.imag) - error_b) > 1e-9:
            continue
        bound = 8 * (error_a + error_b) + EPS * (abs(a) + abs(b))
        if abs(a - b) > bound:
            return True
        # a bound that hides everything says nothing
        seen = seen or bound < 1e-3 * (abs(a) + abs(b)) or bound < 1e-9
    return False if seen else None


def sample_points(names: list[str], count: int = 10) -> list[dict[str, float]]:
    """Fixed pseudo-random points: positive first, then of mixed signs, then integers for n, k, m."""
    if not names:
        return [{}]
    points = []
    state = 12345
    for index in range(count):
        point = {}
        for position, name in enumerate(names):
            state = (1103515245 * state + 12345) % 2**31
            size = 0.3 + 2.2 * (state / 2**31)
            if index >= 8:
                size = float(2 + (state >> 8) % 5)
            negative = 4 <= index < 8 and (index >> (position % 2)) & 1 == (position // 2) % 2
            point[name] = -size if negative or index == 7 else size
        points.append(point)
    return points


def _number(expr: Expr, point: Point) -> Bounded:
    value = float(expr.fraction)
    return complex(value), abs(value) * EPS if value != expr.fraction else 0.0


def _symbol(expr: Expr, point: Point) -> Bounded:
    return complex(point[expr.name]), 0.0


def _constant(expr: Expr, point: Point) -> Bounded:
    value = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}[expr.name]
    return value, 0.0 if expr.name == "i" else EPS


def _add(expr: Expr, point: Point) -> Bounded:
    (a, error_a), (b, error_b) = evaluate(expr.args[0], point), evaluate(expr.args[1], point)
    return a + b, error_a + error_b + abs(a + b) * EPS


def _negative(expr: Expr, point: Point) -> Bounded:
    value, error = evaluate(expr.args[0], point)
    return -value, error


def _multiply(expr: Expr, point: Point) -> Bounded:
    (a, error_a), (b, error_b) = evaluate(expr.args[0], point), evaluate(expr.args[1], point)
    return a * b, abs(a) * error_b + abs(b) * error_a + error_a * error_b + abs(a * b) * EPS


def _divide(expr: Expr, point: Point) -> Bounded:
    (a, error_a), (b, error_b) = evaluate(expr.args[0], point), evaluate(expr.args[1], point)
    if abs(b) <= 2 * error_b or b == 0:
        raise Undefined("a division by zero")
    value = a / b
    return value, (error_a + abs(value) * error_b) / (abs(b) - error_b) + abs(value) * EPS


def _power(expr: Expr, point: Point) -> Bounded:
    (a, error_a), (b, error_b) = evaluate(expr.args[0], point), evaluate(expr.args[1], point)
    if abs(a) <= error_a:
        if a == 0 and b.real > 0 and error_b == 0:
            return 0j, error_a
        raise Undefined("a power of zero")
    if a.imag == 0 and a.real < 0 and b.imag == 0 and b.real != int(b.real):
        return _odd_root_power(expr.args[1], a.real, b.real, error_a)
    if b.imag == 0 and abs(b.real) < 1e6 and b.real == int(b.real) and error_b == 0:
        value = a ** int(b.real)
    else:
        value = a**b
    relative = abs(b) * error_a / abs(a) + abs(cmath.log(a)) * error_b + EPS * (4 + abs(b))
    return value, abs(value) * relative


def _odd_root_power(exponent: Expr, base: float, power: float, error: float) -> Bounded:
    """(-8)^(1/3) = -2: a negative base under an odd root; even roots are not real."""
    exact = Fraction(power).limit_denominator(1000)
    if abs(float(exact) - power) > 1e-12 or exact.denominator % 2 == 0:
        raise Undefined("an even root of a negative number")
    value = abs(base) ** power * (-1 if exact.numerator % 2 else 1)
    return complex(value), abs(value) * (abs(power) * error / abs(base) + 8 * EPS)


def _scaled(factor: float) -> Callable[[Expr, Point], Bounded]:
    def handler(expr: Expr, point: Point) -> Bounded:
        value, error = evaluate(expr.args[0], point)
        return value * factor, error * abs(factor) + abs(value * factor) * EPS

    return handler


def _absolute(expr: Expr, point: Point) -> Bounded:
    value, error = evaluate(expr.args[0], point)
    return complex(abs(value)), error + abs(value) * EPS


def _factorial(expr: Expr, point: Point) -> Bounded:
    value, error = evaluate(expr.args[0], point)
    if value.imag or value.real < 0:
        raise Undefined("a factorial of something other than a natural number")
    result = math.gamma(value.real + 1)
    return complex(result), abs(result) * (error * (1 + math.log1p(value.real)) + 1e-14)


def _binomial(expr: Expr, point: Point) -> Bounded:
    (n, error_n), (k, error_k) = evaluate(expr.args[0], point), evaluate(expr.args[1], point)
    if not error_k and not k.imag and k.real == int(k.real) and 0 <= k.real <= 40:
        return _falling(n, error_n, int(k.real))
    if n.imag or k.imag or not 0 <= k.real <= n.real or n.real > 150 or error_n + error_k:
        raise Undefined("a binomial")
    result = math.gamma(n.real + 1) / math.gamma(k.real + 1) / math.gamma(n.real - k.real + 1)
    return complex(result), abs(result) * 1e-13


def _falling(n: complex, error: float, count: int) -> Bounded:
    """n (n - 1) ... (n - count + 1) / count!, for any n."""
    result, slope = complex(1), 0.0
    for at in range(count):
        slope = (slope * abs(n - at) + abs(result)) / (at + 1)
        result *= (n - at) / (at + 1)
    return result, slope * error + abs(result) * (count + 1) * 4 * EPS


def _function(expr: Expr, point: Point) -> Bounded:
    name = expr.name
    if name == "root":
        return _power(
            Expr("pow", (expr.args[0], Expr("div", (Expr("num", (), Fraction(1)), expr.args[1])))), point
        )
    values = [evaluate(arg, point) for arg in expr.args]
    if name in ("max", "min"):
        pick = max if name == "max" else min
        return pick(values, key=lambda pair: pair[0].real)
    if name == "log" and len(values) == 2:
        top, bottom = _logarithm(*values[0]), _logarithm(*values[1])
        ratio = top[0] / bottom[0]
        return ratio, (top[1] + abs(ratio) * bottom[1]) / abs(bottom[0]) + abs(ratio) * EPS
    if len(values) != 1:
        raise Undefined(name)
    value, error = values[0]
    if name in ("ln", "log"):
        return _logarithm(value, error)
    if name in ("floor", "ceil"):
        rounded = math.floor(value.real) if name == "floor" else math.ceil(value.real)
        if value.imag or abs(value.real - round(value.real)) <= error:
            raise Undefined("a step at its edge")
        return complex(rounded), 0.0
    if isinstance(point, RealPoint) and value.real < -error and name in ("sqrt", "acosh"):
        raise Undefined("the root of a negative number")
    result = _FUNCTIONS[name](value)
    step = max(error, 1e-7 * max(1.0, abs(value)))
    slope = abs(_FUNCTIONS[name](value + step) - result) / step  # first order; callers allow a margin of 8
    return complex(result), 2 * slope * error + 8 * abs(result) * EPS + (EPS * slope * abs(value))


def _logarithm(value: complex, error: float) -> Bounded:
    if abs(value) <= error:
        raise Undefined("the logarithm of zero")
    if value.imag == 0 and value.real < 0:
        raise Undefined("the logarithm of a negative number")
    result = cmath.log(value)
    return result, error / abs(value) + (abs(result) + 1) * EPS


_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "asin": cmath.asin, "acos": cmath.acos,
    "atan": cmath.atan, "acot": lambda value: math.pi / 2 - cmath.atan(value),
    "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh,
    "asinh": cmath.asinh, "acosh": cmath.acosh, "atanh": cmath.atanh, "exp": cmath.exp, "sqrt": cmath.sqrt,
    "cot": lambda value: 1 / cmath.tan(value), "sec": lambda value: 1 / cmath.cos(value),
    "csc": lambda value: 1 / cmath.sin(value), "coth": lambda value: 1 / cmath.tanh(value),
    "sech": lambda value: 1 / cmath.cosh(value), "csch": lambda value: 1 / cmath.sinh(value),
    "re": lambda value: complex(value.real), "im": lambda value: complex(value.imag),
    "conj": lambda value: value.conjugate(),
}  # fmt: skip


def _sum_or_product(expr: Expr, point: Point) -> Bounded:
    """Over a few integers. One within another is not evaluated: the terms would multiply."""
    ends = [evaluate(end, point)[0] for end in expr.args[1:]]
    if expr.name not in ("sum 0", "prod 0") or any(abs(end - round(end.real)) > 1e-9 for end in ends):
        raise Undefined("a sum over a range that is not one of integers")
    low, high = (round(end.real) for end in ends)
    if not -1 <= high - low < MAX_SUMMED:
        raise Undefined("a sum of this many terms")
    is_product = expr.name == "prod 0"
    result, error = complex(is_product), 0.0
    for at in range(low, high + 1):
        inner: dict[str, float] = {**point, "bound 0": at}
        value, more = evaluate(expr.args[0], RealPoint(inner) if isinstance(point, RealPoint) else inner)
        if is_product:
            error = error * abs(value) + more * abs(result) + abs(result * value) * EPS
            result *= value
        else:
            result, error = result + value, error + more + abs(value) * EPS
    return result, error


_HANDLERS: dict[str, Callable[[Expr, Point], Bounded]] = {
    "num": _number, "sym": _symbol, "const": _constant, "add": _add, "neg": _negative, "mul": _multiply,
    "div": _divide, "pow": _power, "percent": _scaled(0.01), "deg": _scaled(math.pi / 180), "abs": _absolute,
    "fact": _factorial, "binom": _binomial, "func": _function, "big": _sum_or_product,
    "bound": lambda expr, point: (complex(point[f"bound {expr.name}"]), 0.0),
}  # fmt: skip
