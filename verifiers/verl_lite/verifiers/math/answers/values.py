"""One value against another: rounding, percentages, degrees, numbers in a base."""

from fractions import Fraction
from math import floor

from verl_lite.verifiers.math.algebra import numeric
from verl_lite.verifiers.math.comparer import EXPRESSION_HEADS, Judge, exact_value
from verl_lite.verifiers.math.expressions import Expr, node, num, substitute, symbols, walk

__all__ = ["base_value", "is_value", "same_value"]

MIN_ROUNDED_DIGITS = 3  # of a decimal reference that is taken for a rounding
MIN_SHOWN_DIGITS = 6  # of a decimal response to an exact reference


def is_value(expr: object) -> bool:
    """Whether `expr` is one expression (no set, relation, list, ...)."""
    return isinstance(expr, Expr) and expr.head in EXPRESSION_HEADS


def same_value(judge: Judge, reference: Expr, response: Expr) -> bool:
    """Whether `response` is the value `reference`, under the rounding policy of the options."""
    reference, response = _scientific(reference), _scientific(response)
    if reference.is_number and response.is_number:
        return _same_number(judge, reference, response)
    if reference.head == "percent" or response.head == "percent":
        return _same_percentage(judge, reference, response)
    if reference.head == "deg" or response.head == "deg":
        return _same_angle(judge, reference, response)
    if reference.head == "base" or response.head == "base":
        return _same_in_base(judge, reference, response)
    return _rounds_to(judge, reference, response) or judge.same(reference, response)


def _scientific(expr: Expr) -> Expr:
    """6.67 * 10^-11 as one decimal that remembers its digits; anything else unchanged."""
    if expr.head != "mul" or not expr.args[0].is_number or expr.args[0].places < 0:
        return expr
    power = expr.args[1]
    if power.head != "pow" or power.args[0] != num(10) or (value := exact_value(power.args[1])) is None:
        return expr
    places = expr.args[0].places - value
    if value.denominator != 1 or not 0 < places < 400:
        return expr
    return num(expr.args[0].fraction * Fraction(10) ** int(value), int(places))


def _same_number(judge: Judge, reference: Expr, response: Expr) -> bool:
    if reference.fraction == response.fraction:
        return True
    if reference.places < 0 and response.places < 0:
        return False
    return _rounds_to(judge, reference, response)


def _rounds_to(judge: Judge, reference: Expr, response: Expr) -> bool:
    """Whether a decimal on either side is an acceptable rounding of the other."""
    if symbols(reference) or symbols(response):
        return False
    if _is_decimal(reference):
        return _is_rounding_of(judge, reference, response)
    if not _is_decimal(response) or not _is_inexact(reference):
        return False
    shown = _shown_digits(response)
    exact = _exact_or_float(reference)
    if shown < MIN_SHOWN_DIGITS or exact is None:
        return False
    return _is_close(judge, response.fraction, exact)


def _is_close(judge: Judge, given: Fraction, exact: Fraction) -> bool:
    return abs(given - exact) <= Fraction(str(judge.options.rel_tol)) * abs(exact)


def _is_rounding_of(judge: Judge, reference: Expr, response: Expr) -> bool:
    """The reference is a decimal: equal within rel_tol, or the more precise response rounds to it."""
    value = _exact_or_float(response)
    if value is None:
        return False
    shown = _shown_digits(reference)
    if _is_decimal(response) and response.places <= reference.places:
        return _is_shorter_rounding(judge, reference, response)
    if _is_float_noise(reference, response):
        return True
    if shown >= MIN_SHOWN_DIGITS and _is_close(judge, value, reference.fraction):
        return True
    if judge.options.rounding == "exact" or shown < MIN_ROUNDED_DIGITS:
        return False
    if response.is_number and response.places < 0 and response.fraction.denominator == 1:
        return False  # an integer is no more precise form of a decimal
    target = reference.fraction * 10**reference.places
    scaled = value * 10**reference.places
    return target in (round(scaled), _half_up(scaled))


def _is_shorter_rounding(judge: Judge, reference: Expr, response: Expr) -> bool:
    """A response with fewer decimals: the rounding of the reference, to six digits or more."""
    if response.places == reference.places or _shown_digits(response) < MIN_SHOWN_DIGITS:
        return False
    scaled = reference.fraction * 10**response.places
    rounded = response.fraction * 10**response.places in (round(scaled), _half_up(scaled))
    return rounded and _is_close(judge, response.fraction, reference.fraction)


def _is_float_noise(reference: Expr, response: Expr) -> bool:
    """0.30000000000000004 for 0.3: what a program prints."""
    if not 15 <= _shown_digits(response) <= 18:
        return False
    return abs(response.fraction - reference.fraction) <= abs(reference.fraction) / 10**15


def _half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2)) if value >= 0 else -floor(-value + Fraction(1, 2))


def _is_decimal(expr: Expr) -> bool:
    return expr.is_number and expr.places >= 0


def _is_inexact(expr: Expr) -> bool:
    """Whether no finite decimal writes the value: 1/3 and pi, not 1/4."""
    value = exact_value(expr)
    if value is None:
        return True
    remaining = value.denominator
    for prime in (2, 5):
        while remaining % prime == 0:
            remaining //= prime
    return remaining != 1


def _shown_digits(expr: Expr) -> int:
    """The significant digits of a decimal as written: 0.0333 shows three, 1.50 too."""
    if not _is_decimal(expr):
        return 10**6
    return len(str(int(abs(expr.fraction) * 10**expr.places)).lstrip("0"))


def _exact_or_float(expr: Expr) -> Fraction | None:
    """The value of a constant expression; an irrational one to what floats hold."""
    exact = exact_value(expr)
    if exact is not None:
        return exact
    try:
        value, error = numeric.evaluate(expr, {})
    except numeric.Undefined:
        return None
    if abs(value.imag) > error + 1e-15 or error > 1e-9 * abs(value):
        return None
    return Fraction(value.real)


# percentages, angles, bases


def _same_percentage(judge: Judge, reference: Expr, response: Expr) -> bool:
    """50% = 0.5; a bare 50 is read as 50% where either side writes the sign."""
    if reference.head == response.head:
        return same_value(judge, reference.args[0], response.args[0])
    if reference.head == "percent":
        share = node("div", reference.args[0], num(100))
        exact = exact_value(share)
        whole = same_value(judge, reference.args[0], response)
        return whole or same_value(judge, num(exact) if exact is not None else share, response)
    hundredth = exact_value(response)
    if same_value(judge, reference, response.args[0]):
        return True
    if hundredth is None:
        return judge.same(reference, response)
    places = response.args[0].places
    return same_value(judge, reference, num(hundredth, places + 2 if places >= 0 else -1))


def _has_pi(expr: Expr) -> bool:
    return any(part == Expr("const", (), "pi") for part in walk(expr))


def _same_angle(judge: Judge, reference: Expr, response: Expr) -> bool:
    """30 degrees = pi/6; a bare 30 is read in degrees where the other side is, unless it holds pi."""
    if reference.head == response.head:
        return same_value(judge, reference.args[0], response.args[0])
    if reference.head == "deg":
        if _has_pi(response):
            return judge.same(reference, response)
        return same_value(judge, reference.args[0], response)
    if _has_pi(reference):
        return judge.same(reference, response)
    return same_value(judge, reference, response.args[0])


def base_value(expr: Expr) -> Fraction | None:
    """The value of digits in a base, None where a digit does not exist there."""
    digits = expr.args[0].name
    if len(digits) > 1000:
        return None
    try:
        return Fraction(int(digits, int(expr.name)))
    except ValueError:
        return None


def _same_in_base(judge: Judge, reference: Expr, response: Expr) -> bool:
    """By value where both name a base; a bare response is read in the reference's base."""
    if reference.head == "base" and response.head == "base":
        value = base_value(reference)
        return value is not None and value == base_value(response)
    if reference.head == "base":
        if not response.is_number or response.places >= 0 or response.fraction.denominator != 1:
            return False
        return str(response.fraction.numerator) == reference.args[0].name.lstrip("0")
    value = base_value(response)
    return value is not None and same_value(judge, reference, num(value))


def renamed(expr: Expr, old: tuple[Expr, ...], new: tuple[Expr, ...]) -> Expr:
    """`expr` with the bound variables `old` called `new`."""
    return substitute(expr, {a.name: b for a, b in zip(old, new, strict=True)})
