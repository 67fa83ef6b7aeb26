"""Spans of real numbers: ordered, merged, intersected. Ends are exact; floats only order them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from verl_lite.verifiers.math.algebra import numeric
from verl_lite.verifiers.math.expressions import Expr, neg, symbols

__all__ = ["INFINITY", "WHOLE", "NoRealSet", "Span", "between", "intersection", "ordered", "outside"]

INFINITY = Expr("const", (), "inf")


class NoRealSet(ValueError):
    """The tree describes no set of real numbers that can be ordered here."""


@dataclass(frozen=True, slots=True)
class Span:
    """The numbers between two ends. `start` and `end` are for ordering only."""

    low: Expr
    low_closed: bool
    high: Expr
    high_closed: bool

    @property
    def start(self) -> float:
        return _position(self.low)

    @property
    def end(self) -> float:
        return _position(self.high)


WHOLE = Span(neg(INFINITY), False, INFINITY, False)


def _position(end: Expr) -> float:
    value = numeric.approximate(end)
    if value is None:
        raise NoRealSet("an end that is no real number")
    return value


def between(low: Expr, low_closed: bool, high: Expr, high_closed: bool) -> Span:
    return Span(low, low_closed and not _is_infinite(low), high, high_closed and not _is_infinite(high))


def _is_infinite(expr: Expr) -> bool:
    return expr == INFINITY or expr == neg(INFINITY)


def ordered(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Sorted and merged where they touch, without empty ones. A single span may have symbolic ends."""
    found = list(spans)
    if len(found) == 1 and (symbols(found[0].low) or symbols(found[0].high)):
        return tuple(found)
    kept = [span for span in found if not _is_empty(span)]
    kept.sort(key=lambda span: (span.start, not span.low_closed))
    merged: list[Span] = []
    for span in kept:
        if merged and _touches(merged[-1], span):
            last = merged.pop()
            is_further = span.end > last.end or (_same(span.end, last.end) and span.high_closed)
            further = span if is_further else last
            merged.append(Span(last.low, last.low_closed, further.high, further.high_closed))
        else:
            merged.append(span)
    return tuple(merged)


def _same(a: float, b: float) -> bool:
    return a == b or math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-14)


def _is_empty(span: Span) -> bool:
    if _same(span.start, span.end):
        return not (span.low_closed and span.high_closed)
    return span.start > span.end


def _touches(first: Span, second: Span) -> bool:
    if _same(first.end, second.start):
        return first.high_closed or second.low_closed
    return second.start < first.end


def intersection(left: Iterable[Span], right: Iterable[Span]) -> list[Span]:
    others = list(right)
    found = [Span(*_later(a, b), *_earlier(a, b)) for a in left for b in others]
    if len(found) == 1 and (symbols(found[0].low) or symbols(found[0].high)):
        return found
    return [span for span in found if not _is_empty(span)]


def _later(a: Span, b: Span) -> tuple[Expr, bool]:
    if a.low == neg(INFINITY) or b.low == neg(INFINITY):
        chosen = b if a.low == neg(INFINITY) else a
    elif _same(a.start, b.start):
        return a.low, a.low_closed and b.low_closed
    else:
        chosen = a if a.start > b.start else b
    return chosen.low, chosen.low_closed


def _earlier(a: Span, b: Span) -> tuple[Expr, bool]:
    if a.high == INFINITY or b.high == INFINITY:
        chosen = b if a.high == INFINITY else a
    elif _same(a.end, b.end):
        return a.high, a.high_closed and b.high_closed
    else:
        chosen = a if a.end < b.end else b
    return chosen.high, chosen.high_closed


def outside(span: Span) -> list[Span]:
    """The spans on either side of a span."""
    ends = [
        Span(neg(INFINITY), False, span.low, not span.low_closed),
        Span(span.high, not span.high_closed, INFINITY, False),
    ]
    return [part for part in ends if not (_is_infinite(part.low) and _is_infinite(part.high))]
