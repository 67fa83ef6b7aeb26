"""Powers, roots, exponentials and logarithms in normal form.

Each is rewritten into generators of the ring, so that equal values get equal forms: sqrt(8) = 2 sqrt(2),
4^x = 2^(2x), ln 6 = ln 2 + ln 3, sqrt(3 + 2 sqrt(2)) = 1 + sqrt(2).
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from math import gcd, isqrt

from verl_lite.verifiers.math.algebra.ring import ONE, UNIT, Monomial, Poly, Quotient, Ring, TooBig

HALF = Fraction(1, 2)


class NoForm(Exception):
    """The expression has no normal form here: an unknown construct, or a division by zero."""


class PowerRing(Ring):
    """A ring whose values can be raised to any power. Methods raise NoForm or TooBig."""

    # powers and roots

    def raised(self, base: Quotient, exponent: Quotient) -> Quotient:
        """base^exponent; exp(exponent ln base) where the exponent is not rational."""
        constant = exponent.constant
        if constant is None:
            return self.exponential(self.multiply(exponent, self.logarithm(base)))
        if constant.denominator == 1:
            if base.is_zero and constant <= 0:
                raise NoForm("zero to the power of zero or less")
            return self.whole_power(base, int(constant))
        return self.integer_power(self.root(base, constant.denominator), constant.numerator)

    def whole_power(self, base: Quotient, exponent: int) -> Quotient:
        value = base.constant
        huge = abs(exponent) > 4096
        if huge and value is not None and value > 0 and value != 1:
            result = self.rational(UNIT)
            for prime, power in _prime_powers(value):
                result = self.multiply(result, self.power_of(Fraction(power * exponent), "prime", prime))
            return result
        if abs(exponent) > 100_000 and value not in (0, 1, -1):
            raise TooBig("too high a power")
        if value in (0, 1):
            return base
        if value == -1:
            return base if exponent % 2 else self.rational(UNIT)
        return self.integer_power(base, exponent)

    def root(self, base: Quotient, degree: int) -> Quotient:
        """The real `degree`-th root; of a quotient, root of top over root of bottom."""
        if base.is_zero:
            return base
        top = self.poly_root(base.top, degree)
        if base.bottom == {ONE: UNIT}:
            return top
        return self.divide(top, self.poly_root(base.bottom, degree))

    def poly_root(self, poly: Poly, degree: int) -> Quotient:
        content = _common_content(poly)
        if len(poly) == 1:
            ((monomial, factor),) = poly.items()
            if factor < 0 and degree % 2 == 0 and degree != 2:
                raise NoForm("an even root of a negative number")
            result = self.number_root(abs(factor), degree)
            if factor < 0:
                unit = self.power_of(UNIT, "i") if degree == 2 else self.rational(Fraction(-1))
                result = self.multiply(result, unit)
            return self.multiply(result, self.monomial_root(monomial, degree))
        if degree == 2 and (denested := self.denested(poly)) is not None:
            return denested
        primitive = {monomial: factor / content for monomial, factor in poly.items()}
        shared = self.shared_monomial(primitive, degree)
        if shared:
            inverse = tuple((generator, -exponent) for generator, exponent in shared)
            primitive = self.multiply_polys(primitive, {inverse: UNIT})
        kept = self.power_of(Fraction(1, degree), "root", self.key(primitive))
        result = self.multiply(self.number_root(content, degree), kept)
        return self.multiply(result, self.monomial_root(shared, degree)) if shared else result

    def denested(self, poly: Poly) -> Quotient | None:
        """sqrt(a + b sqrt r) = sqrt((a+s)/2) + sqrt((a-s)/2), where s^2 = a^2 - b^2 r is a square."""
        if len(poly) != 2 or poly.get(ONE, Fraction(0)) <= 0:
            return None
        constant = poly[ONE]
        other = {monomial: factor for monomial, factor in poly.items() if monomial != ONE}
        if any(self.names[generator][0] != "prime" for monomial in other for generator, _ in monomial):
            return None
        square = self.multiply_polys(other, other)
        rest = constant * constant - square.get(ONE, Fraction(0))
        if set(square) != {ONE} or rest < 0:
            return None
        side = Fraction(isqrt(rest.numerator), isqrt(rest.denominator))
        if side * side != rest:
            return None
        sign = UNIT if next(iter(other.values())) > 0 else Fraction(-1)
        first, second = (self.number_root(part / 2, 2) for part in (constant + side, constant - side))
        return self.add(first, self.scale(second, sign))

    def shared_monomial(self, poly: Poly, degree: int) -> Monomial:
        """Symbols that divide every term, to a multiple of `degree`."""
        common: dict[int, Fraction] | None = None
        for monomial in poly:
            here = {g: e for g, e in monomial if self.names[g][0] == "sym" and e.denominator == 1}
            common = here if common is None else {g: min(e, here[g]) for g, e in common.items() if g in here}
        found = {g: Fraction(int(e) // degree * degree) for g, e in (common or {}).items() if e >= degree}
        return tuple(sorted((g, e) for g, e in found.items() if e))

    def number_root(self, value: Fraction, degree: int) -> Quotient:
        result = self.rational(UNIT)
        for number, sign in ((value.numerator, 1), (value.denominator, -1)):
            if number.bit_length() > 256 and degree == 2 and isqrt(number) ** 2 == number:
                result = self.scale(result, Fraction(isqrt(number)) ** sign)
                continue
            for prime, power in _prime_factors(number):
                part = self.power_of(Fraction(sign * power, degree), "prime", prime)
                result = self.multiply(result, part)
        return result

    def monomial_root(self, monomial: Monomial, degree: int) -> Quotient:
        """x^a -> x^(a/degree); an even root that leaves an odd power of a symbol takes |x|."""
        result = self.rational(UNIT)
        for generator, exponent in monomial:
            halved = exponent / degree
            key = self.names[generator]
            loses_sign = degree % 2 == 0 and exponent.denominator == 1 and int(exponent) % 2 == 0
            odd_left = halved.denominator % 2 == 0 or (halved.denominator == 1 and int(halved) % 2 == 1)
            if loses_sign and odd_left and key[0] in ("sym", "unity"):
                inner = self.key({((generator, UNIT),): UNIT})
                result = self.multiply(result, self.power_of(halved, "abs", inner))
            elif key[0] == "i" or (key[0] in ("func", "log") and loses_sign):
                kept = self.key({((generator, exponent),): UNIT})
                result = self.multiply(result, self.power_of(Fraction(1, degree), "root", kept))
            else:
                part = self.from_poly(self.reduced({((generator, halved),): UNIT}))
                result = self.multiply(result, part)
        return result

    # exponentials and logarithms

    def exponential(self, exponent: Quotient) -> Quotient:
        """exp of a sum is the product of the exps of its terms."""
        if exponent.bottom != {ONE: UNIT}:
            content = _common_content(exponent.top)
            leading = min(exponent.top)
            content = content if exponent.top[leading] > 0 else -content
            top = self.key({monomial: factor / content for monomial, factor in exponent.top.items()})
            return self.power_of(content, "exp", top, self.key(exponent.bottom))
        result = self.rational(UNIT)
        for monomial, factor in exponent.top.items():
            result = self.multiply(result, self.exponential_of_term(monomial, factor))
        return result

    def exponential_of_term(self, monomial: Monomial, factor: Fraction) -> Quotient:
        if monomial == ONE:
            return self.power_of(factor, "e")
        kinds = [self.names[generator][0] for generator, _ in monomial]
        if len(monomial) == 1 and monomial[0][1] == 1 and kinds[0] == "log":
            key = self.names[monomial[0][0]][1:]
            if key[0] == "prime":
                return self.power_of(factor, "prime", key[1])
            return self.raised(self.from_poly(dict(key[1])), self.rational(factor))
        if sorted(kinds) == ["func", "i"] and factor.denominator == 1 and all(e == 1 for _, e in monomial):
            key = self.names[monomial[kinds.index("func")][0]]
            if key[1] in ("atan", "asin") and abs(factor) <= 12:
                return self.integer_power(self.turned_by(key[1], key[2]), int(factor))
        if sorted(kinds) == ["i", "pi"] and all(exponent == 1 for _, exponent in monomial):
            return self.unity(factor)
        return self.power_of(factor, "exp", monomial)

    def turned_by(self, name: str, key: tuple[frozenset[tuple[Monomial, Fraction]], ...]) -> Quotient:
        """exp(i atan r) = (1 + i r) / sqrt(1 + r^2), exp(i asin r) = sqrt(1 - r^2) + i r."""
        argument = Quotient(dict(key[0]), dict(key[1]))
        one, square = self.rational(UNIT), self.multiply(argument, argument)
        upward = self.multiply(argument, self.power_of(UNIT, "i"))
        if name == "asin":
            return self.add(self.root(self.add(one, self.negate(square)), 2), upward)
        return self.divide(self.add(one, upward), self.root(self.add(one, square), 2))

    def unity(self, turns: Fraction) -> Quotient:
        """exp(i pi turns); multiples of pi/12 in square roots, others as a root of unity."""
        turns %= 2
        sign = UNIT
        if turns >= 1:
            turns, sign = turns - 1, Fraction(-1)
        if 12 % turns.denominator:
            return self.scale(self.power_of(turns, "unity"), sign)
        steps = int(turns * 12)
        half, imaginary = _twelfth(steps), _twelfth(steps - 6)
        real = self.surds(half)
        upper = self.multiply(self.surds(imaginary), self.power_of(UNIT, "i"))
        return self.scale(self.add(real, upper), sign)

    def surds(self, parts: tuple[tuple[Fraction, int], ...]) -> Quotient:
        result = self.rational(Fraction(0))
        for factor, radicand in parts:
            result = self.add(result, self.scale(self.number_root(Fraction(radicand), 2), factor))
        return result

    def logarithm(self, argument: Quotient) -> Quotient:
        """ln of a product is the sum of the lns (where all are defined)."""
        if argument.is_zero:
            raise NoForm("the logarithm of zero")
        result = self.poly_logarithm(argument.top)
        if argument.bottom != {ONE: UNIT}:
            result = self.add(result, self.negate(self.poly_logarithm(argument.bottom)))
        return result

    def poly_logarithm(self, poly: Poly) -> Quotient:
        if len(poly) > 1:
            content = _common_content(poly)
            primitive = self.key({monomial: factor / content for monomial, factor in poly.items()})
            return self.add(self.number_logarithm(content), self.power_of(UNIT, "log", "poly", primitive))
        ((monomial, factor),) = poly.items()
        if factor < 0:
            raise NoForm("the logarithm of a negative number")
        result = self.number_logarithm(factor)
        for generator, exponent in monomial:
            key = self.names[generator]
            if key[0] == "e":
                part = self.rational(UNIT)
            elif key[0] == "exp" and len(key) == 2:
                part = self.from_poly({key[1]: UNIT})
            elif key[0] == "prime":
                part = self.power_of(UNIT, "log", "prime", key[1])
            elif key[0] in ("i", "unity"):
                raise NoForm("the logarithm of a complex number")
            elif key[0] == "root":
                part = self.poly_logarithm(dict(key[1]))
            else:
                part = self.power_of(UNIT, "log", "poly", self.key({((generator, UNIT),): UNIT}))
            result = self.add(result, self.scale(part, exponent))
        return result

    def number_logarithm(self, value: Fraction) -> Quotient:
        result = self.rational(Fraction(0))
        for prime, power in _prime_powers(value):
            part = self.power_of(UNIT, "log", "prime", prime)
            result = self.add(result, self.scale(part, Fraction(power)))
        return result

    # absolute values

    def absolute(self, argument: Quotient) -> Quotient:
        """|c p| = c |p|; the sign of p itself is lost, so p and -p share a form."""
        if argument.constant is not None:
            return self.rational(abs(argument.constant))
        top = self.absolute_poly(argument.top)
        if argument.bottom == {ONE: UNIT}:
            return top
        return self.divide(top, self.absolute_poly(argument.bottom))

    def absolute_poly(self, poly: Poly) -> Quotient:
        if any(self.names[generator][0] in ("i", "unity") for monomial in poly for generator, _ in monomial):
            raise NoForm("the modulus of a complex number")
        if len(poly) == 1:
            ((monomial, factor),) = poly.items()
            result = self.rational(abs(factor))
            for generator, exponent in monomial:
                is_even = exponent.denominator % 2 == 0 or exponent % 2 == 0
                if is_even or self.names[generator][0] in ("prime", "pi", "e", "exp", "abs"):
                    part = self.from_poly({((generator, exponent),): UNIT})
                else:
                    part = self.power_of(exponent, "abs", self.key({((generator, UNIT),): UNIT}))
                result = self.multiply(result, part)
            return result
        content = _common_content(poly)
        content = content if poly[min(poly)] > 0 else -content
        inner = self.key({monomial: factor / content for monomial, factor in poly.items()})
        return self.scale(self.power_of(UNIT, "abs", inner), abs(content))


def _prime_powers(value: Fraction) -> Iterator[tuple[int, int]]:
    """(prime, power) pairs of a positive fraction; powers of the denominator are negative."""
    yield from _prime_factors(value.numerator)
    for prime, power in _prime_factors(value.denominator):
        yield prime, -power


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


def _prime_factors(number: int) -> Iterator[tuple[int, int]]:
    """(prime, power) pairs of a positive integer; a large cofactor counts as prime (still exact)."""
    remaining = number
    for prime in chain((2, 3, 5, 7, 11, 13), range(17, 4000, 2)):
        if prime > 13 and prime * prime > remaining:
            break
        power = 0
        while remaining % prime == 0:
            remaining //= prime
            power += 1
        if power:
            yield prime, power
    if remaining > 1:
        side = isqrt(remaining)
        yield (side, 2) if side * side == remaining else (remaining, 1)


def _common_content(poly: Poly) -> Fraction:
    """The positive rational that divides every coefficient, with the rest integral and coprime."""
    tops, bottoms = 0, 1
    for factor in poly.values():
        tops = gcd(tops, factor.numerator)
        bottoms = bottoms * factor.denominator // gcd(bottoms, factor.denominator)
    return Fraction(tops or 1, bottoms)
