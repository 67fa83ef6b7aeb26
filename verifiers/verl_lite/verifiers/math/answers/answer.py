"""One answer, read in every way its text allows; each reading is made when first asked for."""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

from verl_lite.verifiers.math.algebra.normal_form import NoForm, NormalForms
from verl_lite.verifiers.math.algebra.ring import TooBig
from verl_lite.verifiers.math.answers.choices import Choice, read_choice
from verl_lite.verifiers.math.answers.datetimes import Moment, read_moment
from verl_lite.verifiers.math.answers.grammar import parse_answer
from verl_lite.verifiers.math.answers.units import Quantity, read_quantity
from verl_lite.verifiers.math.answers.values import base_value
from verl_lite.verifiers.math.answers.words import number_in_words, plain_words, word_class
from verl_lite.verifiers.math.expressions import Expr, Unreadable, num, symbols, walk
from verl_lite.verifiers.math.reading.normalise import clean, string_key
from verl_lite.verifiers.math.reading.tokens import MAX_DIGITS

__all__ = ["Answer", "read_answer"]

_PROSE = re.compile(r"[A-Za-z0-9 .,;:!?'\"()/%&+-]*\Z")
_LABELLED = re.compile(
    r"(?:\\(?:text|mathrm|operatorname)\s*\{[A-Za-z .,'-]+\}|[A-Za-z][A-Za-z .'-]{2,}+)"
    r"\s*+(?:\([A-Za-z]++\)\s*+)?+[=:]\s*+([^=]++)\Z"
)
_TEXT_ONLY = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}\\]*)\}")


class Answer:
    """`raw` is the text as given; every property is a reading of it."""

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self.text = clean(raw)
        self.key = string_key(self.text)

    @cached_property
    def tree(self) -> Expr | Unreadable:
        parsed = parse_answer(self.text)
        if isinstance(parsed, Unreadable) and (value := number_in_words(self.words)) is not None:
            return num(value)
        if isinstance(parsed, Unreadable) and (labelled := _LABELLED.match(self.text)) is not None:
            return parse_answer(clean(labelled[1]))  # Area = 12
        return parsed

    @cached_property
    def expr(self) -> Expr | None:
        return None if isinstance(self.tree, Unreadable) else self.tree

    @cached_property
    def quantity(self) -> Quantity | None:
        return read_quantity(self.text)

    @cached_property
    def words(self) -> str:
        return plain_words(self.text[:4000])

    @cached_property
    def word_class(self) -> str:
        return word_class(self.key, self.words)

    @cached_property
    def choice(self) -> Choice | None:
        return read_choice(self.text)

    @cached_property
    def moment(self) -> Moment | None:
        return read_moment(self.text)

    @cached_property
    def is_prose(self) -> bool:
        """Only words and ordinary punctuation, with letters and balanced brackets."""
        bare = _TEXT_ONLY.sub(r" \1 ", self.text)
        letters = sum(1 for char in bare if char.isalpha())
        return (
            letters > 1
            and bool(_PROSE.match(bare) or (not bare.isascii() and "\\" not in bare))
            and _balanced(bare)
        )

    @cached_property
    def may_need_proof(self) -> bool:
        """Whether a comparison with this answer may have to ask sympy (worth starting a worker for)."""
        return self.expr is not None and any(
            part.head in ("sym", "func", "pow", "rel") for part in walk(self.expr)
        )

    @cached_property
    def fault(self) -> str:
        """Why this text cannot be a reference; "" where it can."""
        if not self.text:
            return "the reference is empty"
        if self.word_class or self.moment or self.choice or self.quantity is not None:
            return ""
        if isinstance(self.tree, Unreadable):
            if self.is_prose and not _ends_in_operator(self.text):
                return ""
            if self.key.isdigit() and len(self.key) > MAX_DIGITS:
                return ""  # too long to compute with; compared as digits
            return f"the reference cannot be read: {self.tree}"
        return _fault_of(self.tree)


def _balanced(text: str) -> bool:
    depth = 0
    for char in text:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if depth < 0:
            return False
    return depth == 0


def _ends_in_operator(text: str) -> bool:
    return text.endswith(("+", "/", "-", "=", "^"))


def _fault_of(tree: Expr) -> str:
    for part in walk(tree):
        if part.head == "base" and base_value(part) is None:
            return f"the reference has a digit that base {part.name} does not"
        if part.head == "div" and not symbols(part.args[1]) and _is_zero(part.args[1]):
            return "the reference divides by zero"
    return ""


def _is_zero(expr: Expr) -> bool:
    if expr.is_number:
        return expr.fraction == 0
    try:
        return NormalForms().form(expr).is_zero
    except (NoForm, TooBig, RecursionError):
        return False


@lru_cache(maxsize=8192)
def read_answer(raw: str) -> Answer:
    """The answer `raw`, cached: a reference is read once for all responses of its group."""
    return Answer(raw)
