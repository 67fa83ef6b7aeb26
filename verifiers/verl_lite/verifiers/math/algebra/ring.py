"""Exact normal forms: two expressions with the same form are equal. No floats, no sympy.

A value is a quotient of two polynomials over the rationals. Their generators are symbols, primes
under roots, the imaginary unit, e, roots of unity, logarithms of primes, and composite roots,
exponentials and functions keyed by the normal form of what they hold. Sine and cosine are written
through exponentials, so that trigonometric identities become polynomial ones. Symbols are real; an
identity counts where both sides are defined (x^2/x = x, sqrt(x) sqrt(y) = sqrt(xy)). Different forms
prove nothing. Work is bounded: TooBig is raised once terms, digits or products pass a cap.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeAlias

Monomial: TypeAlias = tuple[tuple[int, Fraction], ...]
Poly: TypeAlias = dict[Monomial, Fraction]

MAX_TERMS = 300
MAX_BITS = 40_000
MAX_WORK = 20_000
ONE: Monomial = ()
ZERO, UNIT = Fraction(0), Fraction(1)


class TooBig(Exception):
    """The exact form would pass a cap."""


@dataclass(frozen=True)
class Quotient:
    top: Poly
    bottom: Poly

    @property
    def constant(self) -> Fraction | None:
        """The value where it is a plain rational, else None."""
        if self.bottom != {ONE: UNIT}:
            return None
        if not self.top:
            return ZERO
        return self.top.get(ONE) if len(self.top) == 1 else None

    @property
    def is_zero(self) -> bool:
        return not self.top


@dataclass
class Ring:
    """The generators of one comparison and the arithmetic on polynomials in them."""

    names: list[Any] = field(default_factory=list)
    index: dict[Any, int] = field(default_factory=dict)
    work: int = 0

    def generator(self, *key: Any) -> int:
        found = self.index.get(key)
        if found is None:
            found = self.index[key] = len(self.names)
            self.names.append(key)
        return found

    def spend(self, amount: int) -> None:
        self.work += amount
        if self.work > MAX_WORK:
            raise TooBig("too many products")

    # building

    def rational(self, value: Fraction) -> Quotient:
        _check_digits(value)
        return Quotient({ONE: value} if value else {}, {ONE: UNIT})

    def power_of(self, exponent: Fraction, *key: Any) -> Quotient:
        return self.from_poly(self.reduced({((self.generator(*key), exponent),): UNIT}))

    def from_poly(self, poly: Poly) -> Quotient:
        return Quotient(poly, {ONE: UNIT})

    # polynomials

    def add_polys(self, left: Poly, right: Poly) -> Poly:
        result = dict(left)
        for monomial, factor in right.items():
            total = result.get(monomial, ZERO) + factor
            if total:
                result[monomial] = total
            else:
                result.pop(monomial, None)
        self.spend(len(right))
        if len(result) > MAX_TERMS:
            raise TooBig("too many terms")
        return result

    def multiply_polys(self, left: Poly, right: Poly) -> Poly:
        self.spend(len(left) * len(right))
        if len(left) == 1 and ONE in left:
            factor = left[ONE]
            return {monomial: value * factor for monomial, value in right.items()}
        if len(right) == 1 and ONE in right:
            return self.multiply_polys(right, left)
        result: Poly = {}
        for monomial_a, factor_a in left.items():
            for monomial_b, factor_b in right.items():
                monomial = _merged(monomial_a, monomial_b)
                result[monomial] = result.get(monomial, ZERO) + factor_a * factor_b
            if len(result) > 4 * MAX_TERMS:
                raise TooBig("too many terms")
        return self.reduced({monomial: factor for monomial, factor in result.items() if factor})

    def reduced(self, poly: Poly) -> Poly:
        """Apply each generator's own relation: sqrt(2)^2 = 2, i^2 = -1, |x|^2 = x^2, ..."""
        pending = poly
        result: Poly = {}
        for _ in range(12):
            result = {}
            again: Poly = {}
            for monomial, factor in pending.items():
                rewritten = self.rewrite(monomial)
                if rewritten is None:
                    _accumulate(result, monomial, factor)
                else:
                    for inner, scale in rewritten.items():
                        _accumulate(again, inner, factor * scale)
            self.spend(len(pending))
            if not again:
                break
            for monomial, factor in result.items():
                _accumulate(again, monomial, factor)
            pending = again
        else:
            raise TooBig("a form that does not settle")
        if len(result) > MAX_TERMS:
            raise TooBig("too many terms")
        for factor in result.values():
            _check_digits(factor)
        return {monomial: factor for monomial, factor in result.items() if factor}

    def rewrite(self, monomial: Monomial) -> Poly | None:
        """`monomial` with the first relation that applies carried out; None if none applies."""
        for position, (generator, exponent) in enumerate(monomial):
            replacement = self.relation(self.names[generator], generator, exponent)
            if replacement is not None:
                rest = monomial[:position] + monomial[position + 1 :]
                return {_merged(rest, inner): factor for inner, factor in replacement.items()}
        return None

    def relation(self, key: Any, generator: int, exponent: Fraction) -> Poly | None:
        kind = key[0]
        if kind == "prime":
            return _prime_power(key[1], generator, exponent)
        if kind == "i":
            return self.unit_power(generator, exponent)
        if kind == "root" and exponent >= 1:
            whole, rest = divmod(exponent, 1)
            inner: Poly = dict(key[1])
            powered = inner
            for _ in range(whole - 1):
                powered = self.multiply_polys(powered, inner)
            return _times_power(powered, generator, rest)
        if kind == "abs" and exponent.denominator == 1 and exponent >= 2:
            inner = dict(key[1])
            return _times_power(self.multiply_polys(inner, inner), generator, exponent - 2)
        if kind == "unity" and not 0 <= exponent < 1:  # exp(i pi) = -1
            whole, rest = divmod(exponent, 1)
            return {((generator, rest),) if rest else ONE: Fraction(-1 if whole % 2 else 1)}
        return None

    def unit_power(self, generator: int, exponent: Fraction) -> Poly | None:
        if exponent.denominator != 1 or exponent == 1:
            return None
        turns = exponent.numerator % 4
        sign = Fraction(1 if turns in (0, 1) else -1)
        return {((generator, UNIT),) if turns % 2 else ONE: sign}

    # quotients

    def add(self, left: Quotient, right: Quotient) -> Quotient:
        if left.bottom == right.bottom:
            return Quotient(self.add_polys(left.top, right.top), left.bottom)
        top = self.add_polys(
            self.multiply_polys(left.top, right.bottom), self.multiply_polys(right.top, left.bottom)
        )
        return Quotient(top, self.multiply_polys(left.bottom, right.bottom))

    def multiply(self, left: Quotient, right: Quotient) -> Quotient:
        if left.is_zero or right.is_zero:
            return self.rational(ZERO)
        return Quotient(
            self.multiply_polys(left.top, right.top), self.multiply_polys(left.bottom, right.bottom)
        )

    def scale(self, quotient: Quotient, factor: Fraction) -> Quotient:
        return self.multiply(self.rational(factor), quotient)

    def invert(self, quotient: Quotient) -> Quotient:
        """1/quotient. A single term moves up with negative exponents; sums stay below."""
        if quotient.is_zero:
            raise ZeroDivisionError
        if len(quotient.top) == 1:
            ((monomial, factor),) = quotient.top.items()
            flipped = tuple((generator, -exponent) for generator, exponent in monomial)
            return self.from_poly(self.multiply_polys(quotient.bottom, self.reduced({flipped: 1 / factor})))
        return Quotient(quotient.bottom, quotient.top)

    def negate(self, quotient: Quotient) -> Quotient:
        return self.scale(quotient, Fraction(-1))

    def divide(self, left: Quotient, right: Quotient) -> Quotient:
        return self.multiply(left, self.invert(right))

    def key_of(self, quotient: Quotient) -> tuple[object, ...]:
        """`quotient` as part of a generator's key."""
        return self.key(quotient.top), self.key(quotient.bottom)

    def integer_power(self, base: Quotient, exponent: int) -> Quotient:
        if exponent < 0:
            return self.integer_power(self.invert(base), -exponent)
        if exponent > 1:
            self.check_power(base, exponent)
        result, square = self.rational(UNIT), base
        while exponent:
            if exponent & 1:
                result = self.multiply(result, square)
            exponent >>= 1
            if exponent:
                square = self.multiply(square, square)
        return result

    def check_power(self, base: Quotient, exponent: int) -> None:
        for poly in (base.top, base.bottom):
            bits = max(
                (f.numerator.bit_length() + f.denominator.bit_length() for f in poly.values()), default=0
            )
            if bits > 2 and bits * exponent > MAX_BITS:
                raise TooBig("a power of too many digits")
            if (len(poly) > 1 and exponent > 40) or exponent > 100_000:
                raise TooBig("too high a power")

    def is_equal(self, left: Quotient, right: Quotient) -> bool:
        """Whether the forms agree (True proves equality; False proves nothing)."""
        if left == right:
            return True
        difference = self.add_polys(
            self.multiply_polys(left.top, right.bottom),
            self.multiply_polys({ONE: Fraction(-1)}, self.multiply_polys(right.top, left.bottom)),
        )
        return not difference or not self.without_inverse_roots(difference)

    def without_inverse_roots(self, poly: Poly) -> Poly:
        """`poly` times the powers of composite roots that make all their exponents positive."""
        lowest: dict[int, Fraction] = {}
        for monomial in poly:
            for generator, exponent in monomial:
                if exponent < 0 and self.names[generator][0] in ("root", "abs"):
                    lowest[generator] = min(lowest.get(generator, ZERO), exponent)
        for generator, exponent in lowest.items():
            lift = Fraction(-(exponent.numerator // exponent.denominator))
            lifted = {_merged(monomial, ((generator, lift),)): factor for monomial, factor in poly.items()}
            poly = self.reduced(lifted)
        return poly

    def key(self, poly: Poly) -> frozenset[tuple[Monomial, Fraction]]:
        return frozenset(poly.items())


def _check_digits(value: Fraction) -> None:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise TooBig("a number of too many digits")


def _accumulate(poly: Poly, monomial: Monomial, factor: Fraction) -> None:
    poly[monomial] = poly.get(monomial, ZERO) + factor


def _merged(left: Monomial, right: Monomial) -> Monomial:
    if not left:
        return right
    if not right:
        return left
    exponents = dict(left)
    for generator, exponent in right:
        exponents[generator] = exponents.get(generator, ZERO) + exponent
    return tuple(sorted((generator, exponent) for generator, exponent in exponents.items() if exponent))


def _times_power(poly: Poly, generator: int, exponent: Fraction) -> Poly:
    power = ((generator, exponent),) if exponent else ONE
    return {_merged(monomial, power): factor for monomial, factor in poly.items()}


def _prime_power(prime: int, generator: int, exponent: Fraction) -> Poly | None:
    """prime^exponent with the whole part of the exponent carried out (unless that is huge)."""
    whole = exponent.numerator // exponent.denominator
    if whole == 0 or abs(whole) > 4096:
        return None
    rest = exponent - whole
    return {((generator, rest),) if rest else ONE: Fraction(prime) ** whole}
