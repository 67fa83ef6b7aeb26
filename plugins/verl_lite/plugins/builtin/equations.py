r"""The equations between numbers in a line of text, each decided exactly.

Ambiguous text is left out: an equation with a variable, a function, a control sequence or a word that
acts on numbers ("half of 3 + 4 = 3.5") on one side. Units after the right side are ignored. Time is
linear in the length of the line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from verl_lite.plugins.builtin.arithmetic import NoValue, Token, read_tokens, value_of

MAX_SIDE_CHARS = 200  # read on either side of an equals sign

_SIGN = re.compile(r"(?<![<>=!:~])(?:=|≈)(?![=>])")
_SIDE = re.compile(r"[-+*/^().,%\d\s]*")
_BREAK = re.compile(r"[.,](?=\s|\Z)")  # punctuation, not inside a number
_LIST_MARKER = re.compile(r"\s*(?:\d+[.)]|[*•-])\s+")
_SYMBOL = re.compile(r"\\(?:times|cdot|div|approx|left|right|[%$()\[\]])|[×·÷−$€£]")
_SPELLED = {
    **dict.fromkeys((r"\times", r"\cdot", "×", "·"), "*"),
    **dict.fromkeys((r"\div", "÷"), "/"),
    r"\approx": "≈",
    r"\%": "%",
    "−": "-",
}
# fmt: off
_WORKS_ON_NUMBERS = frozenset((
    "of", "times", "plus", "minus", "by", "over", "half", "twice", "double", "triple", "mod",
    "modulo", "remainder", "rem", "million", "billion", "thousand", "hundred", "dozen", "percent",
    "squared", "cubed", "root", "sum", "power", "cent", "cents",
))
# fmt: on


@dataclass(frozen=True, slots=True)
class Equation:
    text: str
    holds: bool


def equations_in(line: str, *, rounding: bool = True) -> Iterator[Equation]:
    """The decidable equations of a line; "a = b = c" is two.

    With `rounding`, a single decimal on the right may be the left side rounded to its digits; after an
    "about" sign, so may a whole number.

    >>> [(found.text, found.holds) for found in equations_in("So 3 * 4 + 1 = 13 = 26/3.")]
    [('3 * 4 + 1 = 13', True), ('13 = 26 / 3', False)]
    """
    if "=" not in line and "≈" not in line and r"\approx" not in line:
        return
    line = _SYMBOL.sub(lambda match: _SPELLED.get(match[0], " "), line)
    marker = _LIST_MARKER.match(line)
    body = line[marker.end() :] if marker else line
    for sign in _SIGN.finditer(body):
        left = _left_side(body[max(0, sign.start() - MAX_SIDE_CHARS) : sign.start()])
        right = _right_side(body[sign.end() : sign.end() + MAX_SIDE_CHARS])
        if not left or not right or not (_has_operator(left) or _has_operator(right)):
            continue  # "5 = 5" says nothing
        about = sign[0] == "≈"
        try:
            holds = _agree(left, right, about=about, rounding=rounding)
            if not holds and marker and marker[0].strip() == "-":
                holds = _agree(["-", *left], right, about=about, rounding=rounding)  # "- 3 + 4 = 1"
        except NoValue:
            continue
        if not holds and max(left.count("/"), right.count("/")) > 1:
            continue  # "500 / 2/5" may mean either order
        yield Equation(f"{' '.join(left)} {sign[0]} {' '.join(right)}", holds)


def _left_side(text: str) -> list[Token]:
    """The arithmetic at the end of `text`; empty if the text before it may belong to it."""
    match = _SIDE.match(text[::-1])
    assert match is not None
    start = len(text) - match.end()
    if start == 0 and len(text) == MAX_SIDE_CHARS:
        return []  # cut off: its beginning is unknown
    pieces = _BREAK.split(text[start:])
    side = pieces[-1] if pieces[-1].strip() else ""
    if len(pieces) == 1 and _belongs_before(text[:start], side):
        return []
    tokens = _tokens(side)
    if not _has_operator(tokens) and re.search(r"[A-Za-z]\s*\Z", text[:start]):
        return []  # "Week 3 + Week 4 = 48 + 48"
    while tokens.count("(") > tokens.count(")") and tokens[0] == "(":
        del tokens[0]  # "(since 3 + 4 = 7)"
    return tokens


def _belongs_before(before: str, side: str) -> bool:
    if not before.strip():
        return False
    is_attached = before[-1].strip() and side[:1].strip()
    before = before.rstrip()
    if is_attached and re.search(r"\d:\Z", before):
        return True  # "6:00 + 48"
    if before[-1] in "=<>:;(\"'\n≈" or before.endswith("\\("):
        return False
    word = re.search(r"(?<![A-Za-z\\])[A-Za-z]+\Z", before)
    if word is None or is_attached or side.lstrip()[:1] in tuple("+-*/^)%"):
        return True
    text = word[0].casefold()
    return text in _WORKS_ON_NUMBERS or (len(text) == 1 and text not in "ai")


def _right_side(text: str) -> list[Token]:
    """The arithmetic at the start of `text`; empty if the text after it may belong to it."""
    match = _SIDE.match(text)
    assert match is not None
    if match.end() == len(text) == MAX_SIDE_CHARS:
        return []
    pieces = _BREAK.split(match[0])
    if len(pieces) == 1 and _belongs_after(match[0], text[match.end() :]):
        return []
    tokens = _tokens(pieces[0])
    while tokens.count(")") > tokens.count("(") and tokens[-1] == ")":
        del tokens[-1]
    return tokens


def _belongs_after(side: str, after: str) -> bool:
    if not after:
        return False
    if side.rstrip()[-1:] in tuple("+-*/^("):
        return True
    if re.match(r"and\s+[\d\s]+/", after):
        return True  # "= 1 and 1/3"
    word = re.match(r"[A-Za-z]+", after)
    if word is not None:
        text = word[0].casefold()
        return text in _WORKS_ON_NUMBERS or (len(text) == 1 and text not in "ai") or side[-1:].strip() != ""
    return re.match(r"\\[A-Za-z]|[{_!|\[]|:\d", after) is not None


def _tokens(side: str) -> list[Token]:
    """The tokens of `side`; empty if it is more than numbers and operators ("1.2.3", the time "0930")."""
    tokens = read_tokens(side)
    if any(token[0] == "0" and token[1:2].isdigit() for token in tokens):
        return []
    joined = "".join(side.split()).replace(",", "").replace("**", "^")
    return tokens if "".join(tokens) == joined else []


def _has_operator(tokens: list[Token]) -> bool:
    return any(token in "+-*/^" for token in tokens[1:])


def _agree(left: list[Token], right: list[Token], *, about: bool, rounding: bool) -> bool:
    left_value, right_value = value_of(left), value_of(right)
    if left_value == right_value:
        return True
    if "%" in left or "%" in right:  # "1 / 4 * 100 = 25%" is written as often as "1 / 4 = 25%"
        plain = [[token for token in side if token != "%"] for side in (left, right)]
        return _agree(*plain, about=about, rounding=rounding)
    number = [token for token in right if token != "-"]
    if not rounding or len(number) != 1:
        return False
    digits = len(number[0].partition(".")[2])
    return (digits > 0 or about) and abs(left_value - right_value) <= Fraction(1, 2 * 10**digits)
