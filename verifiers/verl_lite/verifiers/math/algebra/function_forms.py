"""Functions in normal form: trigonometry through exponentials, tables of special values, floors."""

from fractions import Fraction
from math import floor, gcd, lcm

from verl_lite.verifiers.math.algebra.normal_form import NoForm, NormalForms
from verl_lite.verifiers.math.algebra.numeric import Undefined, evaluate
from verl_lite.verifiers.math.algebra.ring import UNIT, Quotient
from verl_lite.verifiers.math.expressions import Expr

__all__ = ["apply"]

HALF = Fraction(1, 2)


def apply(forms: NormalForms, expr: Expr) -> Quotient:
    """The normal form of a "func" node."""
    name = expr.name
    if name == "root":
        degree = forms.form(expr.args[1]).constant
        if degree is None or degree.denominator != 1 or not 2 <= degree <= 1000:
            raise NoForm("a root of no fixed degree")
        return forms.root(forms.form(expr.args[0]), int(degree))
    if name == "log":
        return _logarithm(forms, expr)
    if name in ("gcd", "lcm", "max", "min"):
        return _of_numbers(forms, name, [forms.form(arg).constant for arg in expr.args])
    if len(expr.args) != 1:
        raise NoForm(name)
    if name in ("floor", "ceil", "sgn") and (step := _step(expr)) is not None:
        return forms.ring.rational(step)
    argument = forms.form(expr.args[0])
    if name == "sqrt":
        return forms.root(argument, 2)
    if name == "exp":
        return forms.exponential(argument)
    if name == "ln":
        return forms.logarithm(argument)
    if name in ("floor", "ceil", "sgn"):
        return _stepped(forms, name, argument)
    if name in _CIRCULAR:
        return _circular(forms, name, argument)
    if name in _INVERSE:
        return _inverse(forms, name, argument)
    if name == "conj":
        raise NoForm(name)
    return forms.ring.power_of(UNIT, "func", name, forms.key(argument))


def _logarithm(forms: NormalForms, expr: Expr) -> Quotient:
    top = forms.logarithm(forms.form(expr.args[0]))
    if len(expr.args) == 1:
        if forms.log_base == "e":
            return top
        base = forms.ring.rational(Fraction(10))
    else:
        base = forms.form(expr.args[1])
    return forms.ring.multiply(top, forms.ring.invert(forms.logarithm(base)))


def _of_numbers(forms: NormalForms, name: str, values: list[Fraction | None]) -> Quotient:
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values) or not numbers:
        raise NoForm(f"{name} of formulas")
    if name in ("max", "min"):
        return forms.ring.rational(max(numbers) if name == "max" else min(numbers))
    if any(value.denominator != 1 for value in numbers):
        raise NoForm(f"{name} of fractions")
    whole = [int(value) for value in numbers]
    return forms.ring.rational(Fraction(gcd(*whole) if name == "gcd" else lcm(*whole)))


def _step(expr: Expr) -> Fraction | None:
    """floor, ceil or sign of an irrational constant, where floats are certain of it."""
    try:
        value, error = evaluate(expr.args[0], {})
    except Undefined:
        return None
    if value.imag or not abs(value) < 1e12 or abs(value.real - round(value.real)) <= 4 * error + 1e-9:
        return None
    low = Fraction(floor(value.real))
    return (
        low if expr.name == "floor" else low + 1 if expr.name == "ceil" else Fraction(1 if low >= 0 else -1)
    )


def _stepped(forms: NormalForms, name: str, argument: Quotient) -> Quotient:
    value = argument.constant
    if value is None:
        return forms.ring.power_of(UNIT, "func", name, forms.key(argument))
    if name == "sgn":
        return forms.ring.rational(Fraction((value > 0) - (value < 0)))
    return forms.ring.rational(Fraction(value.__floor__() if name == "floor" else value.__ceil__()))


def _circular(forms: NormalForms, name: str, argument: Quotient) -> Quotient:
    """sin u = (E - 1/E) / 2i with E = exp(iu); the hyperbolic ones with E = exp(u)."""
    ring = forms.ring
    hyperbolic = name.endswith("h")
    stem = name[:-1] if hyperbolic else name
    unit = ring.power_of(UNIT, "i")
    grows = forms.exponential(argument if hyperbolic else ring.multiply(argument, unit))
    falls = forms.exponential(
        ring.scale(argument if hyperbolic else ring.multiply(argument, unit), Fraction(-1))
    )
    cosine = ring.scale(ring.add(grows, falls), HALF)
    sine = ring.scale(ring.add(grows, ring.scale(falls, Fraction(-1))), HALF)
    if not hyperbolic:
        sine = ring.multiply(sine, ring.scale(unit, Fraction(-1)))
    if stem in ("sin", "cos"):
        return sine if stem == "sin" else cosine
    if stem in ("tan", "cot"):
        top, bottom = (sine, cosine) if stem == "tan" else (cosine, sine)
        return ring.multiply(top, ring.invert(bottom))
    return ring.invert(cosine if stem == "sec" else sine)


_CIRCULAR = frozenset("sin cos tan cot sec csc sinh cosh tanh coth sech csch".split())
_INVERSE = {"asin": (-6, 6, "sin"), "acos": (0, 12, "cos"), "atan": (-5, 5, "tan"), "acot": (1, 11, "cot")}


def _inverse(forms: NormalForms, name: str, argument: Quotient) -> Quotient:
    """Special values as multiples of pi/12, others as a function of their argument."""
    ring = forms.ring
    odd = name in ("asin", "atan")
    if _is_numeric(forms, argument):
        low, high, stem = _INVERSE[name]
        for steps in range(low, high + 1):
            angle = ring.scale(ring.power_of(UNIT, "pi"), Fraction(steps, 12))
            try:
                if ring.is_equal(_circular(forms, stem, angle), argument):
                    return angle
            except ZeroDivisionError:
                continue
    if odd and argument.top and argument.top[min(argument.top)] < 0:
        return ring.scale(_inverse(forms, name, ring.scale(argument, Fraction(-1))), Fraction(-1))
    if name == "acos":  # arccos x = pi/2 - arcsin x
        right_angle = ring.scale(ring.power_of(UNIT, "pi"), HALF)
        return ring.add(right_angle, ring.scale(_inverse(forms, "asin", argument), Fraction(-1)))
    return ring.power_of(UNIT, "func", name, forms.key(argument))


def _is_numeric(forms: NormalForms, quotient: Quotient) -> bool:
    if len(quotient.top) > 4 or len(quotient.bottom) > 4:
        return False
    generators = {g for poly in (quotient.top, quotient.bottom) for monomial in poly for g, _ in monomial}
    return all(forms.ring.names[generator][0] == "prime" for generator in generators)
