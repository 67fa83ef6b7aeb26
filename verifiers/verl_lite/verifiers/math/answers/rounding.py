"""Rounding: when a decimal stands for a value that it does not equal."""

from fractions import Fraction
from math import ceil, floor, log10

from verl_lite.verifiers.math.algebra import numeric
from verl_lite.verifiers.math.algebra.normal_form import exact_value
from verl_lite.verifiers.math.expressions import Expr, symbols
from verl_lite.verifiers.math.options import MathOptions

MIN_ROUNDED_DIGITS = 3  # of a decimal reference that is taken for a rounding
MIN_SHOWN_DIGITS = 6  # of a decimal response to an exact reference; fewer where rel_tol is larger than 1e-6


def rounds_to(options: MathOptions, reference: Expr, response: Expr) -> bool:
    """Whether a decimal on either side is an acceptable rounding of the other."""
    if symbols(reference) or symbols(response):
        return False
    if _is_decimal(reference):
        return _is_rounding_of(options, reference, response)
    if not _is_decimal(response) or not _is_inexact(reference):
        return False
    shown = _shown_digits(response)
    exact = _exact_or_float(reference)
    if shown < _needed_digits(options) or exact is None:
        return False
    return _is_close(options, response.fraction, exact)


def _needed_digits(options: MathOptions) -> int:
    """The digits a decimal must show to be within the tolerance by more than chance: two for 0.01."""
    if options.rel_tol <= 0:
        return MIN_SHOWN_DIGITS
    return min(MIN_SHOWN_DIGITS, max(1, ceil(-log10(options.rel_tol))))


def _is_close(options: MathOptions, given: Fraction, exact: Fraction) -> bool:
    return abs(given - exact) <= Fraction(str(options.rel_tol)) * abs(exact)


def _is_rounding_of(options: MathOptions, reference: Expr, response: Expr) -> bool:
    """For a decimal reference: equal within rel_tol, or the more precise response rounds to it."""
    value = _exact_or_float(response)
    if value is None:
        return False
    shown, needed = _shown_digits(reference), _needed_digits(options)
    if needed < MIN_SHOWN_DIGITS and min(shown, _shown_digits(response)) >= needed:
        return _is_close(options, value, reference.fraction)  # a tolerance that was asked for
    if _is_decimal(response) and response.places <= reference.places:
        return _is_shorter_rounding(options, reference, response)
    if _is_float_noise(reference, response):
        return True
    if shown >= needed and _is_close(options, value, reference.fraction):
        return True
    if options.rounding == "exact" or shown < MIN_ROUNDED_DIGITS or _is_exact(reference):
        return False
    if response.is_number and response.places < 0 and response.fraction.denominator == 1:
        return False  # an integer is not a more precise form of a decimal
    target = reference.fraction * 10**reference.places
    scaled = value * 10**reference.places
    return target in (round(scaled), _half_up(scaled))


def _is_exact(decimal: Expr) -> bool:
    """112.0, 2.75, 0.375: an integer or halves of halves is no rounding; 2.50 shows that it is one."""
    value, last_digit = decimal.fraction, decimal.fraction * 10**decimal.places % 10
    return value.denominator == 1 or (last_digit != 0 and value.denominator & (value.denominator - 1) == 0)


def _is_shorter_rounding(options: MathOptions, reference: Expr, response: Expr) -> bool:
    """For a response with fewer decimals: it rounds the reference to six digits or more."""
    if response.places == reference.places or _shown_digits(response) < MIN_SHOWN_DIGITS:
        return False
    scaled = reference.fraction * 10**response.places
    rounded = response.fraction * 10**response.places in (round(scaled), _half_up(scaled))
    return rounded and _is_close(options, response.fraction, reference.fraction)


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
    """Whether no finite decimal equals the value: true of 1/3 and pi, not of 1/4."""
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
    """The value of a constant expression, in float precision if it is irrational."""
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
