"""Exact arithmetic on plain text: "12 * (3 + 4)" is 84. Bounded, so never slow."""

import re
from collections.abc import Sequence
from fractions import Fraction

MAX_DIGITS = 30
MAX_EXPONENT = 64
MAX_DEPTH = 20

_TOKEN = re.compile(r"\s*(\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+|\*\*|[-+*/^()%])")

Token = str


class NoValue(Exception):
    """The text is not arithmetic, or exceeds the bounds."""


def read_tokens(text: str) -> list[Token]:
    """The numbers and operators at the start of `text`, up to anything else."""
    found, position = [], 0
    while match := _TOKEN.match(text, position):
        found.append(match[1].replace(",", "").replace("**", "^"))
        position = match.end()
    return found


def value_of(tokens: Sequence[Token]) -> Fraction:
    """The value of an expression of numbers, + - * / ^ % and parentheses; raises NoValue if it has none.

    >>> value_of(read_tokens("12 * (3 + 4) / 5"))
    Fraction(84, 5)
    """
    reader = _Reader(tokens)
    value = reader.sum()
    if reader.at != len(tokens):
        raise NoValue
    return value


class _Reader:
    """Recursive descent; the depth is bounded by MAX_DEPTH."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def _peek(self) -> Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self) -> Token:
        token = self._peek()
        self.at += 1
        return token

    def sum(self) -> Fraction:
        value = self._product()
        while self._peek() in ("+", "-"):
            sign = 1 if self._take() == "+" else -1
            value = _bounded(value + sign * self._product())
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while self._peek() in ("*", "/"):
            divides = self._take() == "/"
            other = self._signed()
            if divides and not other:
                raise NoValue
            value = _bounded(value / other if divides else value * other)
        return value

    def _signed(self) -> Fraction:
        if self._peek() == "-":
            self._take()
            return -self._power()
        return self._power()

    def _power(self) -> Fraction:
        base = self._atom()
        if self._peek() != "^":
            return base
        self._take()
        negative = self._peek() == "-"
        if negative:
            self._take()
        exponent = self._atom() * (-1 if negative else 1)
        if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT or (not base and exponent < 0):
            raise NoValue
        # keeps every intermediate result below MAX_DIGITS * MAX_EXPONENT digits
        return _bounded(base ** int(exponent))

    def _atom(self) -> Fraction:
        token = self._take()
        if token == "(":
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise NoValue
            value = self.sum()
            if self._take() != ")":
                raise NoValue
            self.depth -= 1
        elif token[:1].isdigit() or token[:1] == ".":
            if len(token) > MAX_DIGITS:
                raise NoValue
            value = Fraction(token)
        else:
            raise NoValue
        if self._peek() == "%":
            self._take()
            value /= 100
        return value


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 4 * MAX_DIGITS * 2:
        raise NoValue
    return value
