"""One value against another: rounding, percentages, degrees, numbers in a base."""

from fractions import Fraction

from verl_lite.verifiers.math.algebra.normal_form import exact_value
from verl_lite.verifiers.math.answers.constants import same_family
from verl_lite.verifiers.math.answers.rounding import rounds_to
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, node, num, walk


def same_value(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    """Whether `response` is the value `reference`, under the rounding policy of the options."""
    reference, response = _scientific(reference), _scientific(response)
    if reference.is_number and response.is_number:
        has_decimal = reference.places >= 0 or response.places >= 0
        is_same = reference.fraction == response.fraction
        return is_same or (has_decimal and rounds_to(comparer.options, reference, response))
    if reference.head == "percent" or response.head == "percent":
        return _same_percentage(comparer, reference, response)
    if reference.head == "deg" or response.head == "deg":
        return _same_angle(comparer, reference, response)
    if reference.head == "base" or response.head == "base":
        return _same_in_base(comparer, reference, response)
    if rounds_to(comparer.options, reference, response) or comparer.same(reference, response):
        return True
    return same_family(comparer, reference, response)


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


def _same_percentage(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    """50% = 0.5; a bare 50 is read as 50% where either side writes the sign."""
    if reference.head == response.head:
        return same_value(comparer, reference.args[0], response.args[0])
    if reference.head == "percent":
        share = node("div", reference.args[0], num(100))
        exact, places = exact_value(share), reference.args[0].places
        whole = same_value(comparer, reference.args[0], response)
        return whole or same_value(
            comparer, num(exact, places + 2 if places >= 0 else -1) if exact is not None else share, response
        )
    if reference.head == "deg":
        return False
    hundredth, wanted = exact_value(response), exact_value(reference)
    if same_value(comparer, reference, response.args[0]):
        return wanted is None or abs(wanted) >= 1 or wanted == 0  # 0.05% is no way to write 0.05
    if hundredth is None:
        return comparer.same(reference, response)
    if wanted is not None and wanted.denominator == 1 and abs(wanted) > 1:
        return False  # 1200% is no way to write 12
    places = response.args[0].places
    return same_value(comparer, reference, num(hundredth, max(places, 0) + 2))


def _same_angle(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    """30 degrees = pi/6; a bare 30 is read in degrees where the other side is, unless it holds pi."""
    sides = (reference, response)
    if any(side.head != "deg" and Expr("const", (), "pi") in walk(side) for side in sides):
        return comparer.same(reference, response)
    return same_value(comparer, *(side.args[0] if side.head == "deg" else side for side in sides))


def base_value(expr: Expr) -> Fraction | None:
    """The value of digits in a base, None where a digit does not exist there."""
    digits = expr.args[0].name
    if len(digits) > 1000:
        return None
    try:
        return Fraction(int(digits, int(expr.name)))
    except ValueError:
        return None


def _same_in_base(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    """By value where both name a base; a bare response is read in the reference's base."""
    if reference.head == "base" and response.head == "base":
        value = base_value(reference)
        return value is not None and value == base_value(response)
    if reference.head == "base":
        if int(reference.name) > 10 and not reference.args[0].name.isdigit():  # FF_16 = 255
            meant = base_value(reference)
            return meant is not None and same_value(comparer, num(meant), response)
        if not response.is_number or response.places >= 0 or response.fraction.denominator != 1:
            return False
        return str(response.fraction.numerator) == reference.args[0].name.lstrip("0")
    value = base_value(response)
    return value is not None and same_value(comparer, reference, num(value))
