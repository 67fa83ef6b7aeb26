"""Cleaned text -> tokens: numbers, words, commands, text groups and operators."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from verl_lite.verifiers.math.expressions import Expr, Unreadable, node, num, sym

MAX_TOKENS = 2000
MAX_DIGITS = 4000  # int() is quadratic in the digits, and Python refuses more than 4300
MAX_EXPONENT = 4000

_NUMBER_STARTS = frozenset("0123456789.ABCDEFabcdef")
Kind = Literal["num", "word", "cmd", "text", "op"]


@dataclass(frozen=True, slots=True)
class Token:
    """`spaced` says that a blank comes before; `expr` is the number of a "num" token."""

    kind: Kind
    text: str
    spaced: bool = False
    expr: Expr | None = None


_TEXT_FONTS = r"text|textbf|textit|textrm|textsf|texttt|textnormal|mathrm|mbox|hbox|operatorname\*?|rm|textup"
_MATH_FONTS = r"mathbf|mathit|mathsf|mathtt|mathcal|mathfrak|boldsymbol|bm|bold|vec|overrightarrow|hat|tilde"
_SCANNER = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<num>(?:[0-9]+(?:\.[0-9]+)*|\.[0-9]+)(?:[eE][+-]?[0-9]+(?![A-Za-z0-9.]))?)"
    rf"|\\(?P<font>{_TEXT_FONTS})\s*\{{(?P<text>[^{{}}]*)\}}"
    rf"|\\(?:{_TEXT_FONTS}|{_MATH_FONTS})\s+(?P<bare>[A-Za-z])(?![A-Za-z])"
    rf"|\\(?P<mathfont>{_MATH_FONTS})\s*\{{(?P<styled>[^{{}}]*)\}}"
    r"|\\mathbb\s*+(?:\{\s*+)?+(?P<board>[A-Z])\s*+\}?"
    r"|\\(?P<cmd>[A-Za-z]+\*?)"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<op>\\\\|\\[{}|]|\.\.\.|<=>|<=|>=|!=|=/=|==|\*\*|->|=>|:=|[-+*/^_=<>(){}\[\]|,;:!%'&\"~#@?.])"
)
_NESTING = {
    "(": 1, "[": 1, "\\{": 1, ")": -1, "]": -1, "\\}": -1,
    "lbrace": 1, "rbrace": -1, "langle": 1, "rangle": -1,
}  # fmt: skip
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:(?:,|\{,\})[0-9]{3})+(?![0-9])(?:\.[0-9]+)?")
_SPACED_THOUSANDS = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+(?![0-9])(?:\.[0-9]+)?")
_EUROPEAN = re.compile(  # 1.000,99 and 0,111: nothing else is written so
    r"([0-9]{1,3}(?:\.[0-9]{3})+(?=,[0-9]{2})|[0-9]{1,3}(?:\.[0-9]{3}){2,}|0(?=,[0-9]{3})),([0-9]+)"
    r"(?![0-9]|\s*,|\.[0-9])"
)
_POINTED_THOUSANDS = re.compile(r"[0-9]{1,3}(?:[.'][0-9]{3}){2,}(?![0-9.,'])")  # 1.234.567
_DECIMAL_COMMA = re.compile(r"([0-9]{1,3})\{,\}([0-9]{3})(?![0-9])|[0-9]+\{,\}[0-9]+")
# pattern, longest match, whether only outside of brackets, its digits with a decimal point
_SEPARATED: tuple[tuple[re.Pattern[str], int, bool, Callable[[re.Match[str]], str]], ...] = (
    (_EUROPEAN, 200, True, lambda match: match[1].replace(".", "") + "." + match[2]),
    (_THOUSANDS, MAX_DIGITS, True, lambda match: match[0].replace("{,}", "").replace(",", "")),
    (_POINTED_THOUSANDS, 200, False, lambda match: re.sub("[.']", "", match[0])),
    (_SPACED_THOUSANDS, 200, False, lambda match: match[0].replace(" ", "")),
    (_DECIMAL_COMMA, 200, False, lambda match: match[0].replace("{,}", "" if match[1] else ".")),
)
_REPEATING = re.compile(
    r"(?P<head>[0-9]*\.[0-9]*?)"
    r"(?:\\(?:overline|bar|overbar)\s*+(?:\{\s*+(?P<over>[0-9][0-9 ]*+)\}|(?P<digit>[0-9]))"
    r"|\\dot\s*\{?(?P<first>[0-9])\}?(?P<middle>(?:[0-9]*\\dot\s*\{?[0-9]\}?)?)"
    r"|\((?P<paren>[0-9]+)\)(?:\.\.\.)?(?![0-9A-Za-z(])"
    r"|(?=[0-9]{2,}+\.\.\.)(?P<block>[0-9]{1,12}?)(?P=block)(?P<again>(?P=block)*+)(?P<rest>[0-9]*+)\.\.\.)"
)
_DIGITS_IN_BASE = re.compile(r"\(?([0-9]*[A-Fa-f][0-9A-Fa-f]*)\)?_\{?(16|1[1-5])\}?(?![0-9]|\s*\^)")
_ORDINARY = re.compile(
    r"[0-9]++(?![0-9.,{' A-FXOa-fxo_])"
)  # what follows it belongs to none of these notations
_BASED = re.compile(r"0(?:[xX][0-9a-fA-F]+|[bB][01]+|[oO][0-7]+)(?![0-9A-Za-z])")


@lru_cache(maxsize=256)
def tokenize(text: str) -> tuple[Token, ...]:
    """The tokens of `text`; raises Unreadable for an unknown character or too many tokens.

    Cached, because an answer is read as a quantity and as a tree one after the other.
    """
    tokens: list[Token] = []
    position, spaced, depth = 0, False, 0
    while position < len(text):
        special = _special_number(text, position, depth) if text[position] in _NUMBER_STARTS else None
        if special is not None:
            token, position = special
            tokens.append(Token(token.kind, token.text, spaced, token.expr))
            spaced = False
            continue
        match = _SCANNER.match(text, position)
        if match is None:
            raise Unreadable(f"the character {text[position]!r}, which no answer has")
        position = match.end()
        if match.lastgroup == "space":
            spaced = True
            continue
        tokens.append(_token(match, spaced))
        depth = max(0, depth + _nesting(tokens[-1]))
        spaced = False
        if len(tokens) > MAX_TOKENS:
            raise Unreadable(f"longer than {MAX_TOKENS} tokens")
    return tuple(tokens)


def _nesting(token: Token) -> int:
    return _NESTING.get(token.text, 0) if token.kind in ("op", "cmd") else 0


def _token(match: re.Match[str], spaced: bool) -> Token:
    group = match.lastgroup or ""
    text = match[group]
    if group == "num":
        return Token("num", text, spaced, number_expr(text))
    if group == "text":
        return Token("text", text.strip(), spaced or text[:1].isspace())
    if group == "styled":
        text = text.strip()
        return Token("word" if text.isalpha() and len(text) <= 2 else "text", text, spaced)
    if group in ("board", "cmd"):
        return Token("cmd", "board" + text if group == "board" else text.rstrip("*"), spaced)
    return Token("op" if group == "op" else "word", text, spaced)


def number_expr(text: str) -> Expr:
    """A decimal literal as an exact number that remembers its decimal places; Unreadable if too long."""
    mantissa, _, exponent = text.lower().partition("e")
    mantissa = mantissa.rstrip(".")
    whole, _, decimals = mantissa.partition(".")
    if "." in decimals:
        raise Unreadable("a number with two decimal points")
    if len(whole) + len(decimals) > MAX_DIGITS:
        raise Unreadable(f"a number of more than {MAX_DIGITS} digits")
    value = Fraction(int((whole + decimals) or "0"), 10 ** len(decimals))
    if not exponent:
        return num(value, len(decimals) if decimals else -1)
    if len(exponent) > 6:
        raise Unreadable(f"an exponent beyond {MAX_EXPONENT}")
    power = int(exponent)
    if abs(power) > MAX_EXPONENT:
        raise Unreadable(f"an exponent beyond {MAX_EXPONENT}")
    value = value * 10**power if power >= 0 else value / 10**-power
    places = len(decimals) - power
    return num(value, places if places > 0 else -1)


def _special_number(text: str, start: int, depth: int) -> tuple[Token, int] | None:
    """Repeating decimals, thousands separators, 0x1F: (token, end), or None for a plain number."""
    if _ORDINARY.match(text, start) or (text[start].isalpha() and "_" not in text):
        return None
    if (match := _DIGITS_IN_BASE.match(text, start, start + 200)) is not None:
        based = node("base", sym(match[1].upper()), value=match[2])
        return Token("num", match[0], expr=based), match.end()
    if text[start].isalpha():
        return None
    repeating = _REPEATING.match(text, start, start + 200)
    if repeating is not None and (value := _repeating_value(repeating)) is not None:
        return Token("num", repeating[0], expr=num(value)), repeating.end()
    for pattern, limit, is_outermost, digits_of in _SEPARATED:
        if (depth == 0 or not is_outermost) and (match := pattern.match(text, start, start + limit)):
            digits = digits_of(match)
            return Token("num", digits, expr=number_expr(digits)), match.end()
    if (match := _BASED.match(text, start, start + 200)) is not None:
        base = {"x": "16", "b": "2", "o": "8"}[match[0][1].lower()]
        based = node("base", sym(match[0][2:].upper()), value=base)
        return Token("num", match[0], expr=based), match.end()
    return None


def _repeating_value(match: re.Match[str]) -> Fraction | None:
    """The exact value of a repeating decimal, None where the match does not show a repetition."""
    whole, _, fixed = match["head"].partition(".")
    if match["block"] is not None:
        block, times = match["block"], 2 + len(match["again"]) // len(match["block"])
        if len(block) * times < 3 or not block.startswith(match["rest"]):
            return None
        period = block
    elif match["first"] is not None:
        period = match["first"] + re.sub("[^0-9]", "", match["middle"] or "")
    else:
        period = (match["over"] or match["digit"] or match["paren"]).replace(" ", "")
    if not period:
        return None
    value = Fraction(int(whole or "0") * 10 ** len(fixed) + int(fixed or "0"), 10 ** len(fixed))
    return value + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
