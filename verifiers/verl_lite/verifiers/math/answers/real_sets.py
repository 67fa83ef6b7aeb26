"""Sets of real numbers: intervals, unions, inequalities in one unknown, set builders."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from verl_lite.verifiers.math.algebra import numeric
from verl_lite.verifiers.math.answers.grammar import parse_answer
from verl_lite.verifiers.math.answers.values import is_value, same_value
from verl_lite.verifiers.math.comparer import Judge
from verl_lite.verifiers.math.expressions import Expr, Unreadable, neg, node, num, substitute, symbols

__all__ = ["NoRegion", "Region", "Span", "read_region", "same_region"]

INFINITY = Expr("const", (), "inf")
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "="}


class NoRegion(ValueError):
    """The tree describes no set of real numbers this module can order."""


@dataclass(frozen=True, slots=True)
class Span:
    """The numbers between two ends; the floats are for ordering only."""

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


@dataclass(frozen=True, slots=True)
class Region:
    """Disjoint spans in order, and the unknown they speak of ("" where none is named)."""

    spans: tuple[Span, ...]
    name: str = ""


WHOLE = Span(neg(INFINITY), False, INFINITY, False)


def same_region(judge: Judge, reference: Region, response: Region) -> bool:
    """Whether two regions are the same set; differently named unknowns never are."""
    if reference.name and response.name and reference.name != response.name:
        return False
    if len(reference.spans) != len(response.spans):
        return False
    for ours, theirs in zip(reference.spans, response.spans, strict=True):
        if (ours.low_closed, ours.high_closed) != (theirs.low_closed, theirs.high_closed):
            return False
        for a, b in ((ours.low, theirs.low), (ours.high, theirs.high)):
            if not (a == b or same_value(judge, a, b)):
                return False
    return True


def read_region(judge: Judge, tree: Expr, *, tuples: bool = True) -> Region:
    """The region a tree describes; raises NoRegion. `tuples` lets (a, b) be an open interval."""
    names = _unknowns(tree)
    if len(names) > 1:
        raise NoRegion("more than one unknown")
    name = next(iter(names), "")
    return Region(_ordered(_read(judge, tree, name, tuples)), name)


def _unknowns(tree: Expr) -> frozenset[str]:
    """The names that inequalities are about (the symbols of interval ends do not count)."""
    if tree.head == "rel":
        found = symbols(tree.args[0]) | (
            frozenset() if tree.value in ("in", "notin") else symbols(tree.args[1])
        )
        return found
    if tree.head in ("chain", "and", "or", "list", "union", "intersect"):
        return frozenset().union(*(_unknowns(arg) for arg in tree.args))
    return frozenset()


def _read(judge: Judge, tree: Expr, name: str, tuples: bool) -> list[Span]:
    head = tree.head
    if head == "interval":
        if len(tree.args) != 2 or not all(is_value(arg) for arg in tree.args):
            raise NoRegion("an interval without two ends")
        return [_span(tree.args[0], tree.name[0] == "[", tree.args[1], tree.name[1] == "]")]
    if head == "tuple" and tuples and len(tree.args) == 2 and all(is_value(arg) for arg in tree.args):
        return [_span(tree.args[0], False, tree.args[1], False)]
    if head == "named":
        return _named(tree.name)
    if head == "set":
        return [_span(arg, True, arg, True) for arg in tree.args if _is_point(arg)]
    if head == "union" or head == "or":
        return [span for arg in tree.args for span in _read(judge, arg, name, tuples)]
    if head in ("intersect", "and", "chain"):
        spans = [WHOLE]
        for arg in tree.args:
            spans = _intersection(spans, _ordered(_read(judge, arg, name, tuples)))
        return spans
    if head == "minus":
        return _intersection(_read(judge, tree.args[0], name, tuples), _complement(judge, tree.args[1], name))
    if head == "rel":
        return _relation(judge, tree, name)
    raise NoRegion(head)


def _is_point(expr: Expr) -> bool:
    if not is_value(expr):
        raise NoRegion("a set of something other than numbers")
    return True


def _named(name: str) -> list[Span]:
    zero = num(0)
    known = {
        "R": [WHOLE],
        "empty": [],
        "R+": [_span(zero, False, INFINITY, False)],
        "R-": [_span(neg(INFINITY), False, zero, False)],
    }
    if name not in known:
        raise NoRegion(f"the set {name}")
    return known[name]


def _relation(judge: Judge, tree: Expr, name: str) -> list[Span]:
    left, right = tree.args
    relation = tree.name
    if relation == "in":
        if left.head != "sym":
            raise NoRegion("membership of something other than an unknown")
        return _read(judge, right, name, True)
    if relation == "notin":
        return _complement(judge, right, name)
    if not is_value(left) or not is_value(right) or relation == "~":
        raise NoRegion("a relation between other things than numbers")
    if left.head == "sym" and name not in symbols(right):
        return _half_line(relation, right)
    if right.head == "sym" and name not in symbols(left):
        return _half_line(FLIPPED[relation], left)
    bounded = _absolute_bound(left, relation, right) or _absolute_bound(right, FLIPPED[relation], left)
    if bounded is not None:
        return _read(judge, bounded, name, False)
    return _solved(judge, node("add", left, neg(right)), relation, name)


def _half_line(relation: str, bound: Expr) -> list[Span]:
    low = neg(INFINITY)
    if relation in ("<", "<="):
        return [_span(low, False, bound, relation == "<=")]
    if relation in (">", ">="):
        return [_span(bound, relation == ">=", INFINITY, False)]
    if relation == "=":
        return [_span(bound, True, bound, True)]
    return [_span(low, False, bound, False), _span(bound, False, INFINITY, False)]


def _absolute_bound(left: Expr, relation: str, right: Expr) -> Expr | None:
    """|u| < c as -c < u < c, |u| > c as u < -c or u > c, for a positive number c."""
    if left.head != "abs" or symbols(right) or relation not in FLIPPED or relation in ("=", "!="):
        return None
    size = numeric.approximate(right)
    if size is None or size <= 0:
        return None
    inner = left.args[0]
    if relation in ("<", "<="):
        above = node("rel", neg(right), inner, value=relation)
        return node("and", above, node("rel", inner, right, value=relation))
    return node(
        "or",
        node("rel", inner, neg(right), value=FLIPPED[relation]),
        node("rel", inner, right, value=relation),
    )


def _solved(judge: Judge, difference: Expr, relation: str, name: str) -> list[Span]:
    """The solutions of `difference relation 0`: linear ones here, others by sympy."""
    at_zero = substitute(difference, {name: num(0)})
    slope = node("add", substitute(difference, {name: num(1)}), neg(at_zero))
    line = node("add", node("mul", slope, Expr("sym", (), name)), at_zero)
    steepness = numeric.approximate(slope)
    if name and steepness and judge.same_for_base(difference, line, "e"):
        root = neg(node("div", at_zero, slope))
        return _half_line(relation if steepness > 0 else FLIPPED[relation], root)
    if relation == "!=":
        raise NoRegion("an inequation that is not linear")
    if relation == "=" or not name:
        raise NoRegion("an equation")
    rows = judge.question("solve_inequality", difference, relation, name)
    if not isinstance(rows, list):
        raise NoRegion("an inequality that was not solved")
    return [
        _span(_end(low), low_closed, _end(high), high_closed) for low, low_closed, high, high_closed in rows
    ]


def _end(text: str) -> Expr:
    text = text.replace("oo", "\\infty") if text in ("oo", "-oo") else text
    parsed = parse_answer(text.replace("\\left", "").replace("\\right", ""))
    if isinstance(parsed, Unreadable):
        raise NoRegion(f"an end that is not read: {text}")
    return parsed


def _position(end: Expr) -> float:
    value = numeric.approximate(end)
    if value is None:
        raise NoRegion("an end that is no real number")
    return value


def _span(low: Expr, low_closed: bool, high: Expr, high_closed: bool) -> Span:
    return Span(low, low_closed and not _is_infinite(low), high, high_closed and not _is_infinite(high))


def _is_infinite(expr: Expr) -> bool:
    return expr == INFINITY or expr == neg(INFINITY)


def _ordered(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Sorted, empty ones dropped, touching ones merged. A lone span may have symbolic ends."""
    found = list(spans)
    if len(found) == 1 and (symbols(found[0].low) or symbols(found[0].high)):
        return tuple(found)
    kept = [span for span in found if not _is_empty(span)]
    kept.sort(key=lambda span: (span.start, not span.low_closed))
    merged: list[Span] = []
    for span in kept:
        if merged and _touches(merged[-1], span):
            last = merged.pop()
            further = (
                span if span.end > last.end or (_same(span.end, last.end) and span.high_closed) else last
            )
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


def _intersection(left: Iterable[Span], right: Iterable[Span]) -> list[Span]:
    found = []
    right = list(right)
    for a in left:
        for b in right:
            low = _later(a, b)
            high = _earlier(a, b)
            found.append(Span(low[0], low[1], high[0], high[1]))
    if len(found) == 1 and (symbols(found[0].low) or symbols(found[0].high)):
        return found
    return [span for span in found if not _is_empty(span)]


def _later(a: Span, b: Span) -> tuple[Expr, bool]:
    if a.low == neg(INFINITY) or b.low == neg(INFINITY):
        chosen = b if a.low == neg(INFINITY) else a
        return chosen.low, chosen.low_closed
    if _same(a.start, b.start):
        return a.low, a.low_closed and b.low_closed
    chosen = a if a.start > b.start else b
    return chosen.low, chosen.low_closed


def _earlier(a: Span, b: Span) -> tuple[Expr, bool]:
    if a.high == INFINITY or b.high == INFINITY:
        chosen = b if a.high == INFINITY else a
        return chosen.high, chosen.high_closed
    if _same(a.end, b.end):
        return a.high, a.high_closed and b.high_closed
    chosen = a if a.end < b.end else b
    return chosen.high, chosen.high_closed


def _complement(judge: Judge, tree: Expr, name: str) -> list[Span]:
    """The real numbers outside a region, or outside points listed one by one."""
    if is_value(tree):
        tree = node("set", tree)
    if tree.head == "rel" and tree.value == "=":
        tree = node("set", tree.args[1])
    if tree.head in ("list", "tuple"):
        tree = node("set", *(arg.args[1] if arg.head == "rel" else arg for arg in tree.args))
    spans = [WHOLE]
    for span in _ordered(_read(judge, tree, name, True)):
        outside = [
            Span(neg(INFINITY), False, span.low, not span.low_closed),
            Span(span.high, not span.high_closed, INFINITY, False),
        ]
        kept = [part for part in outside if not (_is_infinite(part.low) and _is_infinite(part.high))]
        spans = _intersection(spans, kept)
    return spans
