"""Functions in normal form: trigonometry through exponentials, tables of special values, floors."""

from collections.abc import Callable
from fractions import Fraction
from math import floor, gcd, lcm
from typing import Protocol

from verl_lite.verifiers.math.algebra.numeric import Undefined, evaluate
from verl_lite.verifiers.math.algebra.powers import HALF, NoForm, PowerRing
from verl_lite.verifiers.math.algebra.ring import ONE, UNIT, Quotient
from verl_lite.verifiers.math.expressions import Expr, node, num


class Forms(Protocol):
    """The normal forms that the arguments of a function are read into."""

    ring: PowerRing
    log_base: str

    def form(self, expr: Expr) -> Quotient: ...


def apply(forms: Forms, expr: Expr) -> Quotient:
    name = expr.name
    if name == "root":
        degree = forms.form(expr.args[1]).constant
        if degree is None or degree.denominator != 1 or not 2 <= degree <= 1000:
            raise NoForm("a root without a fixed degree")
        return forms.ring.root(forms.form(expr.args[0]), int(degree))
    if name == "log":
        return _logarithm(forms, expr)
    if name == "fact2":
        return forms.form(_double_factorial(forms, expr.args[0]))
    if name in ("mod", "gcd", "lcm", "max", "min"):
        return _of_numbers(forms, name, [forms.form(arg).constant for arg in expr.args])
    if len(expr.args) != 1:
        raise NoForm(name)
    if name in ("floor", "ceil", "sgn") and (step := _step(expr)) is not None:
        return forms.ring.rational(step)
    argument = forms.form(expr.args[0])
    if name in _POWERS:
        return _POWERS[name](forms.ring, argument)
    if name in ("floor", "ceil", "sgn"):
        return _stepped(forms, name, argument)
    if name in _CIRCULAR:
        return _circular(forms.ring, name, argument)
    if name in _INVERSE:
        return _inverse(forms.ring, name, argument)
    if name == "conj":
        raise NoForm(name)
    return forms.ring.power_of(UNIT, "func", name, forms.ring.key_of(argument))


def _double_factorial(forms: Forms, argument: Expr) -> Expr:
    """(2k)!! = 2^k k! and (2k-1)!! = (2k)! / (2^k k!)."""
    form = forms.form(argument)
    top = form.top.get(ONE, Fraction(0))
    rest = [factor for monomial, factor in form.top.items() if monomial != ONE]
    if form.bottom != {ONE: UNIT} or any(factor.denominator != 1 or factor % 2 for factor in rest):
        raise NoForm("a double factorial of unknown parity")
    if top.denominator != 1 or (not rest and not -1 <= top <= 2000):
        raise NoForm("a double factorial of something other than a natural number")
    odd = top % 2 == 1
    even = node("add", argument, num(1)) if odd else argument
    half = node("div", even, num(2))
    product = node("mul", node("pow", num(2), half), node("fact", half))
    return node("div", node("fact", even), product) if odd else product


def _logarithm(forms: Forms, expr: Expr) -> Quotient:
    top = forms.ring.logarithm(forms.form(expr.args[0]))
    if len(expr.args) == 1:
        if forms.log_base == "e":
            return top
        base = forms.ring.rational(Fraction(10))
    else:
        base = forms.form(expr.args[1])
    return forms.ring.divide(top, forms.ring.logarithm(base))


def _of_numbers(forms: Forms, name: str, values: list[Fraction | None]) -> Quotient:
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values) or not numbers:
        raise NoForm(f"{name} of formulas")
    if name == "mod":
        if len(numbers) != 2 or numbers[1] == 0:
            raise NoForm("a remainder of a division by zero")
        return forms.ring.rational(numbers[0] % numbers[1])
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
    low = floor(value.real)
    return Fraction({"floor": low, "ceil": low + 1, "sgn": 1 if low >= 0 else -1}[expr.name])


def _stepped(forms: Forms, name: str, argument: Quotient) -> Quotient:
    value = argument.constant
    if value is None:
        return forms.ring.power_of(UNIT, "func", name, forms.ring.key_of(argument))
    if name == "sgn":
        return forms.ring.rational(Fraction((value > 0) - (value < 0)))
    return forms.ring.rational(Fraction(value.__floor__() if name == "floor" else value.__ceil__()))


def _circular(ring: PowerRing, name: str, argument: Quotient) -> Quotient:
    """sin u = (E - 1/E) / 2i with E = exp(iu); the hyperbolic ones with E = exp(u)."""
    hyperbolic = name.endswith("h")
    stem = name[:-1] if hyperbolic else name
    unit = ring.power_of(UNIT, "i")
    exponent = argument if hyperbolic else ring.multiply(argument, unit)
    grows, falls = ring.exponential(exponent), ring.exponential(ring.negate(exponent))
    cosine = ring.scale(ring.add(grows, falls), HALF)
    sine = ring.scale(ring.add(grows, ring.negate(falls)), HALF)
    if not hyperbolic:
        sine = ring.multiply(sine, ring.negate(unit))
    if stem in ("sin", "cos"):
        return sine if stem == "sin" else cosine
    if stem in ("tan", "cot"):
        return ring.divide(sine, cosine) if stem == "tan" else ring.divide(cosine, sine)
    return ring.invert(cosine if stem == "sec" else sine)


_POWERS: dict[str, Callable[[PowerRing, Quotient], Quotient]] = {
    "sqrt": lambda ring, argument: ring.root(argument, 2),
    "exp": PowerRing.exponential,
    "ln": PowerRing.logarithm,
}
_CIRCULAR = frozenset("sin cos tan cot sec csc sinh cosh tanh coth sech csch".split())
_INVERSE = {"asin": (-6, 6, "sin"), "acos": (0, 12, "cos"), "atan": (-5, 5, "tan"), "acot": (1, 11, "cot")}


def _inverse(ring: PowerRing, name: str, argument: Quotient) -> Quotient:
    """Special values as multiples of pi/12, others as a function of their argument."""
    odd = name in ("asin", "atan")
    if _is_numeric(ring, argument):
        low, high, stem = _INVERSE[name]
        for steps in range(low, high + 1):
            angle = ring.scale(ring.power_of(UNIT, "pi"), Fraction(steps, 12))
            try:
                if ring.is_equal(_circular(ring, stem, angle), argument):
                    return angle
            except ZeroDivisionError:
                continue
    if odd and argument.top and argument.top[min(argument.top)] < 0:
        return ring.negate(_inverse(ring, name, ring.negate(argument)))
    if name == "acos":  # arccos x = pi/2 - arcsin x
        right_angle = ring.scale(ring.power_of(UNIT, "pi"), HALF)
        return ring.add(right_angle, ring.negate(_inverse(ring, "asin", argument)))
    return ring.power_of(UNIT, "func", name, ring.key_of(argument))


def _is_numeric(ring: PowerRing, quotient: Quotient) -> bool:
    if len(quotient.top) > 4 or len(quotient.bottom) > 4:
        return False
    generators = {g for poly in (quotient.top, quotient.bottom) for monomial in poly for g, _ in monomial}
    return all(ring.names[generator][0] == "prime" for generator in generators)
