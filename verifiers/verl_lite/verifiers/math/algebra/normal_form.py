"""Syntax tree -> exact normal form (see algebra.py)."""

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, isqrt

from verl_lite.verifiers.math.algebra.ring import (
    ONE,
    UNIT,
    Monomial,
    Poly,
    Quotient,
    Ring,
    TooBig,
    common_content,
)
from verl_lite.verifiers.math.algebra.ring import prime_factors as factors_of
from verl_lite.verifiers.math.expressions import Expr

__all__ = ["NoForm", "NormalForms"]

MAX_FACTORIAL = 2500
HALF = Fraction(1, 2)


class NoForm(Exception):
    """The expression has no normal form here: an unknown construct, or a division by zero."""


class NormalForms:
    """Normal forms over one Ring. `log_base` is what a bare "log" means: "e" or "10"."""

    def __init__(self, log_base: str = "e") -> None:
        self.ring = Ring()
        self.log_base = log_base

    def form(self, expr: Expr) -> Quotient:
        """The form of `expr`; raises NoForm or TooBig."""
        handler = _HANDLERS.get(expr.head)
        if handler is None:
            raise NoForm(expr.head)
        try:
            return handler(self, expr)
        except ZeroDivisionError:
            raise NoForm("a division by zero") from None

    # leaves and arithmetic

    def number(self, expr: Expr) -> Quotient:
        return self.ring.rational(expr.fraction)

    def symbol(self, expr: Expr) -> Quotient:
        return self.ring.power_of(UNIT, "sym", expr.name)

    def constant(self, expr: Expr) -> Quotient:
        if expr.name == "inf":
            raise NoForm("infinity")
        return self.ring.power_of(UNIT, expr.name)

    def sum(self, expr: Expr) -> Quotient:
        return self.ring.add(self.form(expr.args[0]), self.form(expr.args[1]))

    def negative(self, expr: Expr) -> Quotient:
        return self.ring.scale(self.form(expr.args[0]), Fraction(-1))

    def product(self, expr: Expr) -> Quotient:
        return self.ring.multiply(self.form(expr.args[0]), self.form(expr.args[1]))

    def ratio(self, expr: Expr) -> Quotient:
        return self.ring.multiply(self.form(expr.args[0]), self.ring.invert(self.form(expr.args[1])))

    def percent(self, expr: Expr) -> Quotient:
        return self.ring.scale(self.form(expr.args[0]), Fraction(1, 100))

    def degrees(self, expr: Expr) -> Quotient:
        radians = self.ring.multiply(self.form(expr.args[0]), self.ring.power_of(UNIT, "pi"))
        return self.ring.scale(radians, Fraction(1, 180))

    # powers

    def power(self, expr: Expr) -> Quotient:
        exponent = self.form(expr.args[1])
        if expr.args[0] == Expr("const", (), "e"):
            return self.exponential(exponent)
        return self.raised(self.form(expr.args[0]), exponent)

    def raised(self, base: Quotient, exponent: Quotient) -> Quotient:
        constant = exponent.constant
        if constant is None:
            return self.exponential(self.ring.multiply(exponent, self.logarithm(base)))
        if constant.denominator == 1:
            if base.is_zero and constant <= 0:
                raise NoForm("zero to the power of zero or less")
            return self.whole_power(base, int(constant))
        return self.ring.integer_power(self.root(base, constant.denominator), constant.numerator)

    def whole_power(self, base: Quotient, exponent: int) -> Quotient:
        value = base.constant
        huge = abs(exponent) > 4096
        if huge and value is not None and value > 0 and value != 1:
            result = self.ring.rational(UNIT)
            for number, sign in ((value.numerator, 1), (value.denominator, -1)):
                for prime, power in factors_of(number):
                    huge_power = self.ring.power_of(Fraction(sign * power * exponent), "prime", prime)
                    result = self.ring.multiply(result, huge_power)
            return result
        if abs(exponent) > 100_000 and value not in (0, 1, -1):
            raise TooBig("too high a power")
        if value in (0, 1):
            return base
        if value == -1:
            return base if exponent % 2 else self.ring.rational(UNIT)
        return self.ring.integer_power(base, exponent)

    def root(self, base: Quotient, degree: int) -> Quotient:
        """The real `degree`-th root; of a quotient, root of top over root of bottom."""
        if base.is_zero:
            return base
        top = self.poly_root(base.top, degree)
        if base.bottom == {ONE: UNIT}:
            return top
        return self.ring.multiply(top, self.ring.invert(self.poly_root(base.bottom, degree)))

    def poly_root(self, poly: Poly, degree: int) -> Quotient:
        content = common_content(poly)
        if len(poly) == 1:
            ((monomial, factor),) = poly.items()
            if factor < 0 and degree % 2 == 0 and degree != 2:
                raise NoForm("an even root of a negative number")
            result = self.number_root(abs(factor), degree)
            if factor < 0:
                unit = self.ring.power_of(UNIT, "i") if degree == 2 else self.ring.rational(Fraction(-1))
                result = self.ring.multiply(result, unit)
            return self.ring.multiply(result, self.monomial_root(monomial, degree))
        if degree == 2 and (denested := self.denested(poly)) is not None:
            return denested
        primitive = {monomial: factor / content for monomial, factor in poly.items()}
        shared = self.shared_monomial(primitive, degree)
        if shared:
            inverse = tuple((generator, -exponent) for generator, exponent in shared)
            primitive = self.ring.multiply_polys(primitive, {inverse: UNIT})
        kept = self.ring.power_of(Fraction(1, degree), "root", self.ring.key(primitive))
        result = self.ring.multiply(self.number_root(content, degree), kept)
        return self.ring.multiply(result, self.monomial_root(shared, degree)) if shared else result

    def denested(self, poly: Poly) -> Quotient | None:
        """sqrt(a + b sqrt r) = sqrt((a+s)/2) + sqrt((a-s)/2), where s^2 = a^2 - b^2 r is a square."""
        if len(poly) != 2 or poly.get(ONE, Fraction(0)) <= 0:
            return None
        constant = poly[ONE]
        other = {monomial: factor for monomial, factor in poly.items() if monomial != ONE}
        if any(self.ring.names[generator][0] != "prime" for monomial in other for generator, _ in monomial):
            return None
        square = self.ring.multiply_polys(other, other)
        rest = constant * constant - square.get(ONE, Fraction(0))
        if set(square) != {ONE} or rest < 0:
            return None
        side = Fraction(isqrt(rest.numerator), isqrt(rest.denominator))
        if side * side != rest:
            return None
        sign = UNIT if next(iter(other.values())) > 0 else Fraction(-1)
        first, second = (self.number_root(part / 2, 2) for part in (constant + side, constant - side))
        return self.ring.add(first, self.ring.scale(second, sign))

    def shared_monomial(self, poly: Poly, degree: int) -> Monomial:
        """Symbols that divide every term, to a multiple of `degree`."""
        common: dict[int, Fraction] | None = None
        for monomial in poly:
            here = {g: e for g, e in monomial if self.ring.names[g][0] == "sym" and e.denominator == 1}
            common = here if common is None else {g: min(e, here[g]) for g, e in common.items() if g in here}
        found = {g: Fraction(int(e) // degree * degree) for g, e in (common or {}).items() if e >= degree}
        return tuple(sorted((g, e) for g, e in found.items() if e))

    def number_root(self, value: Fraction, degree: int) -> Quotient:
        result = self.ring.rational(UNIT)
        for number, sign in ((value.numerator, 1), (value.denominator, -1)):
            if number.bit_length() > 256 and degree == 2 and isqrt(number) ** 2 == number:
                result = self.ring.scale(result, Fraction(isqrt(number)) ** sign)
                continue
            for prime, power in factors_of(number):
                part = self.ring.power_of(Fraction(sign * power, degree), "prime", prime)
                result = self.ring.multiply(result, part)
        return result

    def monomial_root(self, monomial: Monomial, degree: int) -> Quotient:
        """x^a -> x^(a/degree); an even root that leaves an odd power of a symbol takes |x|."""
        result = self.ring.rational(UNIT)
        for generator, exponent in monomial:
            halved = exponent / degree
            key = self.ring.names[generator]
            loses_sign = degree % 2 == 0 and exponent.denominator == 1 and int(exponent) % 2 == 0
            odd_left = halved.denominator % 2 == 0 or (halved.denominator == 1 and int(halved) % 2 == 1)
            if loses_sign and odd_left and key[0] in ("sym", "unity"):
                inner = self.ring.key({((generator, UNIT),): UNIT})
                result = self.ring.multiply(result, self.ring.power_of(halved, "abs", inner))
            elif key[0] == "i" or (key[0] in ("func", "log") and loses_sign):
                kept = self.ring.key({((generator, exponent),): UNIT})
                result = self.ring.multiply(result, self.ring.power_of(Fraction(1, degree), "root", kept))
            else:
                part = self.ring.from_poly(self.ring.reduced({((generator, halved),): UNIT}))
                result = self.ring.multiply(result, part)
        return result

    # exponentials and logarithms

    def exponential(self, exponent: Quotient) -> Quotient:
        """exp of a sum is the product of the exps of its terms."""
        if exponent.bottom != {ONE: UNIT}:
            content = common_content(exponent.top)
            leading = min(exponent.top)
            content = content if exponent.top[leading] > 0 else -content
            top = self.ring.key({monomial: factor / content for monomial, factor in exponent.top.items()})
            return self.ring.power_of(content, "exp", top, self.ring.key(exponent.bottom))
        result = self.ring.rational(UNIT)
        for monomial, factor in exponent.top.items():
            result = self.ring.multiply(result, self.exponential_of_term(monomial, factor))
        return result

    def exponential_of_term(self, monomial: Monomial, factor: Fraction) -> Quotient:
        ring = self.ring
        if monomial == ONE:
            return ring.power_of(factor, "e")
        kinds = [ring.names[generator][0] for generator, _ in monomial]
        if len(monomial) == 1 and monomial[0][1] == 1 and kinds[0] == "log":
            key = ring.names[monomial[0][0]][1:]
            if key[0] == "prime":
                return ring.power_of(factor, "prime", key[1])
            return self.raised_log_argument(key[1], factor)
        if sorted(kinds) == ["func", "i"] and factor.denominator == 1 and all(e == 1 for _, e in monomial):
            key = next(
                ring.names[generator] for generator, _ in monomial if ring.names[generator][0] == "func"
            )
            if key[1] in ("atan", "asin") and abs(factor) <= 12:
                return ring.integer_power(self.turned_by(key[1], key[2]), int(factor))
        if sorted(kinds) == ["i", "pi"] and all(exponent == 1 for _, exponent in monomial):
            return self.unity(factor)
        return ring.power_of(factor, "exp", monomial)

    def turned_by(self, name: str, key: tuple[frozenset[tuple[Monomial, Fraction]], ...]) -> Quotient:
        """exp(i atan r) = (1 + i r) / sqrt(1 + r^2), exp(i asin r) = sqrt(1 - r^2) + i r."""
        ring = self.ring
        argument = Quotient(dict(key[0]), dict(key[1]))
        one, square = ring.rational(UNIT), ring.multiply(argument, argument)
        upward = ring.multiply(argument, ring.power_of(UNIT, "i"))
        if name == "asin":
            return ring.add(self.root(ring.add(one, ring.scale(square, Fraction(-1))), 2), upward)
        return ring.multiply(ring.add(one, upward), ring.invert(self.root(ring.add(one, square), 2)))

    def raised_log_argument(
        self, argument: frozenset[tuple[Monomial, Fraction]], factor: Fraction
    ) -> Quotient:
        inner = self.ring.from_poly(dict(argument))
        return self.raised(inner, self.ring.rational(factor))

    def unity(self, turns: Fraction) -> Quotient:
        """exp(i pi turns); multiples of pi/12 in square roots, others as a root of unity."""
        turns %= 2
        sign = UNIT
        if turns >= 1:
            turns, sign = turns - 1, Fraction(-1)
        if 12 % turns.denominator:
            return self.ring.scale(self.ring.power_of(turns, "unity"), sign)
        steps = int(turns * 12)
        half, imaginary = _twelfth(steps), _twelfth(steps - 6)
        real = self.surds(half)
        upper = self.ring.multiply(self.surds(imaginary), self.ring.power_of(UNIT, "i"))
        return self.ring.scale(self.ring.add(real, upper), sign)

    def surds(self, parts: tuple[tuple[Fraction, int], ...]) -> Quotient:
        result = self.ring.rational(Fraction(0))
        for factor, radicand in parts:
            result = self.ring.add(result, self.ring.scale(self.number_root(Fraction(radicand), 2), factor))
        return result

    def logarithm(self, argument: Quotient) -> Quotient:
        """ln of a product is the sum of the lns (where all are defined)."""
        if argument.is_zero:
            raise NoForm("the logarithm of zero")
        result = self.poly_logarithm(argument.top)
        if argument.bottom != {ONE: UNIT}:
            result = self.ring.add(
                result, self.ring.scale(self.poly_logarithm(argument.bottom), Fraction(-1))
            )
        return result

    def poly_logarithm(self, poly: Poly) -> Quotient:
        ring = self.ring
        if len(poly) > 1:
            content = common_content(poly)
            primitive = ring.key({monomial: factor / content for monomial, factor in poly.items()})
            return ring.add(self.number_logarithm(content), ring.power_of(UNIT, "log", "poly", primitive))
        ((monomial, factor),) = poly.items()
        if factor < 0:
            raise NoForm("the logarithm of a negative number")
        result = self.number_logarithm(factor)
        for generator, exponent in monomial:
            key = ring.names[generator]
            if key[0] == "e":
                part = ring.rational(UNIT)
            elif key[0] == "exp" and len(key) == 2:
                part = ring.from_poly({key[1]: UNIT})
            elif key[0] == "prime":
                part = ring.power_of(UNIT, "log", "prime", key[1])
            elif key[0] in ("i", "unity"):
                raise NoForm("the logarithm of a complex number")
            elif key[0] == "root":
                part = self.poly_logarithm(dict(key[1]))
            else:
                part = ring.power_of(UNIT, "log", "poly", ring.key({((generator, UNIT),): UNIT}))
            result = ring.add(result, ring.scale(part, exponent))
        return result

    def number_logarithm(self, value: Fraction) -> Quotient:
        result = self.ring.rational(Fraction(0))
        for number, sign in ((value.numerator, 1), (value.denominator, -1)):
            for prime, power in factors_of(number):
                part = self.ring.power_of(UNIT, "log", "prime", prime)
                result = self.ring.add(result, self.ring.scale(part, Fraction(sign * power)))
        return result

    # functions

    def function(self, expr: Expr) -> Quotient:
        from verl_lite.verifiers.math.algebra import function_forms

        return function_forms.apply(self, expr)

    def unknown_call(self, expr: Expr) -> Quotient:
        keys = [self.key(self.form(arg)) for arg in expr.args]
        return self.ring.power_of(UNIT, "func", expr.name, *keys)

    def key(self, quotient: Quotient) -> tuple[object, ...]:
        return self.ring.key(quotient.top), self.ring.key(quotient.bottom)

    def factorial(self, expr: Expr) -> Quotient:
        """n! of numbers up to a cap; (p + k)! of a polynomial p through p!."""
        argument = self.form(expr.args[0])
        value = argument.constant
        if value is not None:
            if value.denominator != 1 or value < 0:
                raise NoForm("the factorial of no natural number")
            if value > MAX_FACTORIAL:
                return self.ring.power_of(UNIT, "func", "fact", value)
            return self.ring.rational(Fraction(factorial(int(value))))
        if argument.bottom != {ONE: UNIT}:
            raise NoForm("the factorial of a quotient")
        shift = argument.top.get(ONE, Fraction(0))
        if shift.denominator != 1 or abs(shift) > 20:
            return self.ring.power_of(UNIT, "func", "fact", self.key(argument))
        base = self.ring.add(argument, self.ring.rational(-shift))
        result = self.ring.power_of(UNIT, "func", "fact", self.key(base))
        for step in range(1, int(shift) + 1):
            result = self.ring.multiply(result, self.ring.add(base, self.ring.rational(Fraction(step))))
        for step in range(int(shift) + 1, 1):
            below = self.ring.add(base, self.ring.rational(Fraction(step)))
            result = self.ring.multiply(result, self.ring.invert(below))
        return result

    def binomial(self, expr: Expr) -> Quotient:
        top, bottom = self.form(expr.args[0]), self.form(expr.args[1])
        count = bottom.constant
        if top.constant is not None and count is not None:
            return self.number_binomial(top.constant, count)
        if count is None or count.denominator != 1 or not 0 <= count <= 12:
            raise NoForm("a binomial over a formula")
        result = self.ring.rational(Fraction(1, factorial(int(count))))
        for step in range(int(count)):
            result = self.ring.multiply(result, self.ring.add(top, self.ring.rational(Fraction(-step))))
        return result

    def number_binomial(self, top: Fraction, bottom: Fraction) -> Quotient:
        if top.denominator != 1 or bottom.denominator != 1 or top < 0:
            raise NoForm("a binomial of no natural numbers")
        if bottom < 0 or bottom > top:
            return self.ring.rational(Fraction(0))
        if min(bottom, top - bottom) > MAX_FACTORIAL or top > 10**6:
            raise TooBig("a binomial of too many digits")
        return self.ring.rational(Fraction(comb(int(top), int(bottom))))

    def absolute(self, expr: Expr) -> Quotient:
        """|c p| = c |p|; the sign of p itself is lost, so p and -p share a form."""
        argument = self.form(expr.args[0])
        if argument.constant is not None:
            return self.ring.rational(abs(argument.constant))
        if argument.bottom != {ONE: UNIT}:
            top = self.absolute_poly(argument.top)
            return self.ring.multiply(top, self.ring.invert(self.absolute_poly(argument.bottom)))
        return self.absolute_poly(argument.top)

    def absolute_poly(self, poly: Poly) -> Quotient:
        if any(
            self.ring.names[generator][0] in ("i", "unity") for monomial in poly for generator, _ in monomial
        ):
            raise NoForm("the modulus of a complex number")
        if len(poly) == 1:
            ((monomial, factor),) = poly.items()
            result = self.ring.rational(abs(factor))
            for generator, exponent in monomial:
                if (
                    self.ring.names[generator][0] in ("prime", "pi", "e", "exp", "abs")
                    or (exponent.denominator == 1 and exponent % 2 == 0)
                    or exponent.denominator % 2 == 0
                ):
                    part = self.ring.from_poly({((generator, exponent),): UNIT})
                else:
                    inner = self.ring.key({((generator, UNIT),): UNIT})
                    part = self.ring.power_of(exponent, "abs", inner)
                result = self.ring.multiply(result, part)
            return result
        content = common_content(poly)
        content = content if poly[min(poly)] > 0 else -content
        inner = self.ring.key({monomial: factor / content for monomial, factor in poly.items()})
        return self.ring.scale(self.ring.power_of(UNIT, "abs", inner), abs(content))


@lru_cache(maxsize=32)
def _twelfth(steps: int) -> tuple[tuple[Fraction, int], ...]:
    """cos(steps * pi/12) as a sum of rationals times square roots: (factor, radicand) pairs."""
    steps = abs(steps) % 24
    steps = min(steps, 24 - steps)
    if steps > 6:
        return tuple((-factor, radicand) for factor, radicand in _twelfth(12 - steps))
    quarter = Fraction(1, 4)
    return (
        ((UNIT, 1),),
        ((quarter, 6), (quarter, 2)),
        ((HALF, 3),),
        ((HALF, 2),),
        ((HALF, 1),),
        ((quarter, 6), (-quarter, 2)),
        (),
    )[steps]


_HANDLERS: dict[str, Callable[[NormalForms, Expr], Quotient]] = {
    "num": NormalForms.number,
    "sym": NormalForms.symbol,
    "const": NormalForms.constant,
    "add": NormalForms.sum,
    "neg": NormalForms.negative,
    "mul": NormalForms.product,
    "div": NormalForms.ratio,
    "pow": NormalForms.power,
    "percent": NormalForms.percent,
    "deg": NormalForms.degrees,
    "func": NormalForms.function,
    "call": NormalForms.unknown_call,
    "fact": NormalForms.factorial,
    "binom": NormalForms.binomial,
    "abs": NormalForms.absolute,
}
