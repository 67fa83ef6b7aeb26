"""Syntax tree -> exact normal form (see ring.py)."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from math import comb, factorial

from verl_lite.verifiers.math.algebra import function_forms
from verl_lite.verifiers.math.algebra.powers import NoForm, PowerRing
from verl_lite.verifiers.math.algebra.ring import ONE, UNIT, Quotient, TooBig
from verl_lite.verifiers.math.expressions import INFINITY, Expr, bound, neg, node, num, replace, sym

MAX_FACTORIAL = 2500
MAX_BIG_TERMS = 200
MAX_SUMMED_DEGREE = 12


class NormalForms:
    """Normal forms over one ring. `log_base` is what a bare "log" means: "e" or "10"."""

    def __init__(self, log_base: str = "e") -> None:
        self.ring = PowerRing()
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

    def constant(self, expr: Expr) -> Quotient:
        if expr.name == "inf":
            raise NoForm("infinity")
        return self.ring.power_of(UNIT, expr.name)

    def degrees(self, expr: Expr) -> Quotient:
        radians = self.ring.multiply(self.form(expr.args[0]), self.ring.power_of(UNIT, "pi"))
        return self.ring.scale(radians, Fraction(1, 180))

    def power(self, expr: Expr) -> Quotient:
        exponent = self.form(expr.args[1])
        if expr.args[0] == Expr("const", (), "e"):
            return self.ring.exponential(exponent)
        return self.ring.raised(self.form(expr.args[0]), exponent)

    def unknown_call(self, expr: Expr) -> Quotient:
        keys = [self.ring.key_of(self.form(arg)) for arg in expr.args]
        return self.ring.power_of(UNIT, "func", expr.name, *keys)

    def factorial(self, expr: Expr) -> Quotient:
        """n! of numbers up to a cap; (p + k)! of a polynomial p through p!."""
        argument = self.form(expr.args[0])
        value = argument.constant
        if value is not None:
            if value.denominator != 1 or value < 0:
                raise NoForm("the factorial of something other than a natural number")
            if value > MAX_FACTORIAL:
                return self.ring.power_of(UNIT, "func", "fact", value)
            return self.ring.rational(Fraction(factorial(int(value))))
        if argument.bottom != {ONE: UNIT}:
            raise NoForm("the factorial of a quotient")
        shift = argument.top.get(ONE, Fraction(0))
        if shift.denominator != 1 or abs(shift) > 20:
            return self.ring.power_of(UNIT, "func", "fact", self.ring.key_of(argument))
        base = self.ring.add(argument, self.ring.rational(-shift))
        result = self.ring.power_of(UNIT, "func", "fact", self.ring.key_of(base))
        for step in range(1, int(shift) + 1):
            result = self.ring.multiply(result, self.ring.add(base, self.ring.rational(Fraction(step))))
        for step in range(int(shift) + 1, 1):
            result = self.ring.divide(result, self.ring.add(base, self.ring.rational(Fraction(step))))
        return result

    def big(self, expr: Expr) -> Quotient:
        """A sum or product over a fixed range, term by term; the sum of a polynomial for any range."""
        kind, number = expr.name.split(" ")
        low, high = (None if end == INFINITY else self.form(end).constant for end in expr.args[1:])
        if kind == "sum" and (low is None or high is None or high - low >= MAX_BIG_TERMS):
            degree = _degree(expr.args[0], number)
            if degree is not None and degree <= MAX_SUMMED_DEGREE and INFINITY not in expr.args:
                return self.polynomial_sum(expr, bound(int(number)), degree)
            if number == "0" and (series := self.geometric_sum(expr)) is not None:
                return series
        if kind not in ("sum", "prod") or low is None or high is None or low.denominator != 1:
            raise NoForm(f"a {kind} over a range that is not fixed")
        if high.denominator != 1 or high - low >= MAX_BIG_TERMS:
            raise NoForm("too long a range")
        result = self.ring.rational(Fraction(1 if kind == "prod" else 0))
        combine = self.ring.multiply if kind == "prod" else self.ring.add
        for at in range(int(low), int(high) + 1):
            self.ring.spend(20)
            result = combine(result, self.form(replace(expr.args[0], bound(int(number)), num(at))))
        return result

    def polynomial_sum(self, expr: Expr, variable: Expr, degree: int) -> Quotient:
        """Newton's series: the sum of p from a to b is that of D^j p(a) * binom(b - a + 1, j + 1)."""
        body, low, high = expr.args
        differences = [
            self.form(replace(body, variable, node("add", low, num(at)))) for at in range(degree + 1)
        ]
        count = self.form(node("add", node("add", high, neg(low)), num(1)))
        result = self.ring.rational(Fraction(0))
        for order in range(degree + 1):
            self.ring.spend(20)
            term = self.ring.multiply(differences[0], self.falling(count, order + 1))
            result = self.ring.add(result, term)
            differences = [self.ring.add(b, self.ring.negate(a)) for a, b in pairwise(differences)]
        return result

    def geometric_sum(self, expr: Expr) -> Quotient | None:
        """f(a) (r^m - 1) / (r - 1) for m terms, f(a) / (1 - r) without an end; None where r is no number."""
        body, low, high = expr.args
        index = sym("index of summation")
        first, following = (replace(body, bound(0), term) for term in (index, node("add", index, num(1))))
        ratio = self.ring.divide(self.form(following), self.form(first)).constant
        if ratio is None or ratio in (0, 1):
            return None
        start = self.form(replace(body, bound(0), low))
        if high == INFINITY:
            return self.ring.scale(start, 1 / (1 - ratio)) if abs(ratio) < 1 else None
        count = self.form(node("add", node("add", high, neg(low)), num(1)))
        power = self.ring.raised(self.ring.rational(ratio), count)
        less_one = self.ring.add(power, self.ring.rational(Fraction(-1)))
        return self.ring.scale(self.ring.multiply(start, less_one), 1 / (ratio - 1))

    def binomial(self, expr: Expr) -> Quotient:
        top, bottom = self.form(expr.args[0]), self.form(expr.args[1])
        count = bottom.constant
        if top.constant is not None and count is not None:
            return self.number_binomial(top.constant, count)
        if count is None or count.denominator != 1 or not 0 <= count <= 12:
            raise NoForm("a binomial over a formula")
        return self.falling(top, int(count))

    def falling(self, top: Quotient, count: int) -> Quotient:
        """top (top - 1) ... (top - count + 1) / count!"""
        result = self.ring.rational(Fraction(1, factorial(count)))
        for step in range(count):
            result = self.ring.multiply(result, self.ring.add(top, self.ring.rational(Fraction(-step))))
        return result

    def number_binomial(self, top: Fraction, bottom: Fraction) -> Quotient:
        if top.denominator != 1 or bottom.denominator != 1 or top < 0:
            raise NoForm("a binomial of something other than natural numbers")
        if bottom < 0 or bottom > top:
            return self.ring.rational(Fraction(0))
        if min(bottom, top - bottom) > MAX_FACTORIAL or top > 10**6:
            raise TooBig("a binomial of too many digits")
        return self.ring.rational(Fraction(comb(int(top), int(bottom))))


def _degree(body: Expr, number: str) -> int | None:
    """The degree of a polynomial in the bound variable `number`; None for other formulas."""
    if body.head == "bound":
        return int(body.name == number)
    degrees = [_degree(arg, number) for arg in body.args]
    known = [degree for degree in degrees if degree is not None]
    if len(known) < len(degrees):
        return None
    if not any(known):
        return 0
    if body.head in ("add", "neg"):
        return max(known)
    if body.head == "mul":
        return sum(known)
    if body.head == "div":
        return known[0] if known[1] == 0 else None
    if body.head != "pow" or not body.args[1].is_number:
        return None
    power = body.args[1].fraction
    return known[0] * int(power) if power.denominator == 1 and 0 <= power <= MAX_SUMMED_DEGREE else None


def exact_value(expr: Expr) -> Fraction | None:
    """The rational value of a constant expression, None where it is irrational, symbolic or too big."""
    if expr.is_number:
        return expr.fraction
    try:
        return NormalForms().form(expr).constant
    except (NoForm, TooBig, RecursionError):
        return None


_HANDLERS: dict[str, Callable[[NormalForms, Expr], Quotient]] = {
    "num": lambda forms, expr: forms.ring.rational(expr.fraction),
    "sym": lambda forms, expr: forms.ring.power_of(UNIT, "sym", expr.name),
    "const": NormalForms.constant,
    "add": lambda forms, expr: forms.ring.add(forms.form(expr.args[0]), forms.form(expr.args[1])),
    "neg": lambda forms, expr: forms.ring.negate(forms.form(expr.args[0])),
    "mul": lambda forms, expr: forms.ring.multiply(forms.form(expr.args[0]), forms.form(expr.args[1])),
    "div": lambda forms, expr: forms.ring.divide(forms.form(expr.args[0]), forms.form(expr.args[1])),
    "pow": NormalForms.power,
    "percent": lambda forms, expr: forms.ring.scale(forms.form(expr.args[0]), Fraction(1, 100)),
    "deg": NormalForms.degrees,
    "func": function_forms.apply,
    "call": NormalForms.unknown_call,
    "fact": NormalForms.factorial,
    "binom": NormalForms.binomial,
    "big": NormalForms.big,
    "abs": lambda forms, expr: forms.ring.absolute(forms.form(expr.args[0])),
}
