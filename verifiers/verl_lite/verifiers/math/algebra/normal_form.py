"""Syntax tree -> exact normal form (see ring.py)."""

from collections.abc import Callable
from fractions import Fraction
from math import comb, factorial

from verl_lite.verifiers.math.algebra import function_forms
from verl_lite.verifiers.math.algebra.powers import NoForm, PowerRing
from verl_lite.verifiers.math.algebra.ring import ONE, UNIT, Quotient, TooBig
from verl_lite.verifiers.math.expressions import Expr, bound, num, replace

MAX_FACTORIAL = 2500
MAX_BIG_TERMS = 200


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
        """A sum or product over a fixed range of integers, term by term."""
        kind, number = expr.name.split(" ")
        low, high = (self.form(end).constant for end in expr.args[1:])
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
            raise NoForm("a binomial of something other than natural numbers")
        if bottom < 0 or bottom > top:
            return self.ring.rational(Fraction(0))
        if min(bottom, top - bottom) > MAX_FACTORIAL or top > 10**6:
            raise TooBig("a binomial of too many digits")
        return self.ring.rational(Fraction(comb(int(top), int(bottom))))


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
