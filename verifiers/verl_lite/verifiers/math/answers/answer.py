"""One answer. Each type reads it when it is first asked to; the reading is kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from verl_lite.verifiers.math.answers.grammar import parse_answer
from verl_lite.verifiers.math.answers.parts import read_numbered, read_parts
from verl_lite.verifiers.math.expressions import Expr, Unreadable, num, walk
from verl_lite.verifiers.math.reading.escapes import restored
from verl_lite.verifiers.math.reading.normalise import clean, string_key
from verl_lite.verifiers.math.reading.words import number_in_words, plain_words

Reading = TypeVar("Reading")
_LABELLED = re.compile(
    r"(?:\\(?:text|mathrm|operatorname)\s*\{[A-Za-z .,'-]+\}|[A-Za-z][A-Za-z .'-]{2,}+)"
    r"\s*+(?:\([A-Za-z]++\)\s*+)?+[=:]\s*+([^=]++)\Z"
)
_NAME_AT_END = re.compile(r"\s([A-Za-z]\s*=\s*)\Z")


class Answer:
    """`raw` is the text as given, `text` its cleaned form; answers with equal keys are equal strings."""

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self.text = clean(restored(raw))
        self.key = string_key(self.text)
        self._readings: dict[Callable[[Answer], Any], Any] = {}

    def read(self, reader: Callable[[Answer], Reading]) -> Reading:
        """`reader(self)`, computed once: this answer read as one type."""
        if reader not in self._readings:
            self._readings[reader] = reader(self)
        reading: Reading = self._readings[reader]
        return reading

    @cached_property
    def tree(self) -> Expr | Unreadable:
        if self.numbered is not None:
            return self.numbered
        parsed = parse_answer(self.text)
        if not isinstance(parsed, Unreadable):
            return parsed
        if (value := number_in_words(self.words)) is not None:
            return num(value)
        if (labelled := _LABELLED.match(self.text)) is not None:
            named = _NAME_AT_END.search(labelled[0][: labelled.start(1)])  # the line x = 3
            return parse_answer(clean(named[1] + labelled[1] if named else labelled[1]))  # Area = 12
        return read_parts(self.text) or parsed

    @cached_property
    def numbered(self) -> Expr | None:
        """The list of (1) 3; (2) 5; None for other answers."""
        return read_numbered(self.text) if ")" in self.text else None

    @cached_property
    def expr(self) -> Expr | None:
        return None if isinstance(self.tree, Unreadable) else self.tree

    @cached_property
    def words(self) -> str:
        return plain_words(self.text[:4000])

    @cached_property
    def may_need_proof(self) -> bool:
        """Whether a comparison with this answer may have to ask sympy (worth starting a worker for)."""
        return self.expr is not None and any(
            part.head in ("sym", "func", "pow", "rel") for part in walk(self.expr)
        )


@lru_cache(maxsize=8192)
def read_answer(raw: str) -> Answer:
    """The answer `raw`, cached: a reference is read once for all responses of its group."""
    return Answer(raw)
