"""Sets of real numbers: intervals, unions, inequalities in one unknown, set builders."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from verl_lite.verifiers.math.algebra import numeric
from verl_lite.verifiers.math.answers.assignments import assignment, systems, with_named_calls
from verl_lite.verifiers.math.answers.relations import FLIPPED, same_relation
from verl_lite.verifiers.math.answers.same_value import same_value
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import (
    INFINITY,
    Expr,
    Unreadable,
    is_value,
    neg,
    node,
    num,
    parts_of,
    substitute,
    symbols,
)
from verl_lite.verifiers.math.reading.commands import parse_expression
from verl_lite.verifiers.math.reading.parser import ExpressionParser


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


@dataclass(frozen=True, slots=True)
class RealSet:
    """Disjoint spans in order, and the unknown they are about ("" where none is named)."""

    spans: tuple[Span, ...]
    name: str = ""


def read_number_set(parser: ExpressionParser, letter: str) -> Expr:
    r"""`\mathbb{R}`, `\mathbb{R}^+`, `\mathbb{Z}_+`, ..., read after the letter."""
    if letter not in "RZNQC":
        raise Unreadable(f"the set {letter}")
    sign = parser.peek(1).text
    if (parser.at("^") and sign in ("+", "-")) or (parser.at("_") and sign == "+"):
        parser.position += 2
        letter += sign
    return node("named", value=letter)


def is_real_set(tree: Expr) -> bool:
    """Whether a tree is meant as a set of real numbers, even where it cannot be read as one."""
    if tree.head == "rel":
        return tree.value != "=" and tree.value != "~"
    if tree.head == "chain" and all(link.value == "=" for link in tree.args):
        return False
    heads = ("named", "chain", "interval", "union", "intersect", "minus", "and", "or")
    return tree.head in heads and systems(tree) is None


def compare(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    """The same numbers. Relations that cannot be read as a set must be the same relation."""
    is_ours = is_real_set(reference) or reference.head == "named"
    response = _united(response) if is_ours else response
    reference = _united(reference) if response.head == "union" else reference
    if not is_ours and not (reference.head in ("tuple", "union") and is_real_set(response)):
        return None
    if response.head == "rel" and response.value == "=" and (named := assignment(response)) is not None:
        response = named[1]  # A cap B = (0, 2]
    if _holds_infinity(response) and not _holds_infinity(reference):
        return False
    reference, response = with_named_calls(reference), with_named_calls(response)
    try:
        ours, theirs = read_real_set(comparer, reference), read_real_set(comparer, response)
    except NoRealSet as reason:
        comparer.note(str(reason))
        return same_relation(comparer, reference, response)
    if ours.spans in _TRIVIAL and _is_condition(reference) and _is_condition(response):
        return same_relation(comparer, reference, response)
    return _same_set(comparer, ours, theirs)


def _holds_infinity(tree: Expr) -> bool:
    """Whether an end at infinity is closed, which no set of real numbers is."""
    return any(
        (part.name[0] == "[" and _is_infinite(part.args[0]))
        or (part.name[1] == "]" and _is_infinite(part.args[1]))
        for part in parts_of(tree, "interval")
    )


def _united(tree: Expr) -> Expr:
    """Intervals in a list are their union: (-inf, 2) and (3, inf)."""
    spans = all(item.head in ("interval", "tuple") and len(item.args) == 2 for item in tree.args)
    return node("union", *tree.args) if tree.head == "list" and spans else tree


def _is_condition(tree: Expr) -> bool:
    """Whether a set is given by what holds in it. Conditions that hold nowhere are not all the same."""
    return tree.head in ("rel", "chain", "and", "or")


def _same_set(comparer: Comparer, reference: RealSet, response: RealSet) -> bool:
    """Whether two sets hold the same numbers; sets of differently named unknowns are never the same."""
    if reference.name and response.name and reference.name != response.name:
        return False
    if len(reference.spans) != len(response.spans):
        return False
    for ours, theirs in zip(reference.spans, response.spans, strict=True):
        if (ours.low_closed, ours.high_closed) != (theirs.low_closed, theirs.high_closed):
            return False
        for a, b in ((ours.low, theirs.low), (ours.high, theirs.high)):
            if not (a == b or same_value(comparer, a, b)):
                return False
    return True


def read_real_set(comparer: Comparer, tree: Expr) -> RealSet:
    """The set a tree describes, where (a, b) is an open interval; raises NoRealSet."""
    names = _unknowns(tree)
    if len(names) > 1:
        raise NoRealSet("more than one unknown")
    return RealSet(_ordered(_read(comparer, tree, name := next(iter(names), ""))), name)


def _unknowns(tree: Expr) -> frozenset[str]:
    """The names that inequalities are about (the symbols of interval ends do not count)."""
    if tree.head == "rel":
        sides = tree.args[:1] if tree.value in ("in", "notin") else tree.args
        return frozenset().union(*map(symbols, sides))
    middle = tree.args[0].args[1] if tree.head == "chain" and len(tree.args) == 2 else tree
    if middle.head == "sym":
        return symbols(middle)  # x of a < x < b
    if tree.head in ("chain", "and", "or", "list", "union", "intersect", "minus"):
        return frozenset().union(*(_unknowns(arg) for arg in tree.args))
    return frozenset()


def _read(comparer: Comparer, tree: Expr, name: str) -> list[Span]:
    head = tree.head
    if head == "interval":
        if len(tree.args) != 2 or not all(is_value(arg) for arg in tree.args):
            raise NoRealSet("an interval without two ends")
        return [_interval(tree.args[0], tree.name[0] == "[", tree.args[1], tree.name[1] == "]")]
    if head == "tuple" and len(tree.args) == 2 and all(is_value(arg) for arg in tree.args):
        return [_interval(tree.args[0], False, tree.args[1], False)]
    if head == "named":
        if tree.name not in _NAMED:
            raise NoRealSet(f"the set {tree.name}")
        return _NAMED[tree.name]
    if head == "set":
        if not all(is_value(arg) for arg in tree.args):
            raise NoRealSet("a set of something other than numbers")
        return [_between(arg, True, arg, True) for arg in tree.args]
    if head in ("union", "or"):
        return [span for arg in tree.args for span in _read(comparer, arg, name)]
    if head in ("intersect", "and", "chain"):
        spans = [WHOLE]
        for arg in tree.args:
            spans = _intersection(spans, _ordered(_read(comparer, arg, name)))
        if not spans and tree.value == ",":
            return [span for arg in tree.args for span in _read(comparer, arg, name)]
        return spans
    if head == "minus":
        return _intersection(_read(comparer, tree.args[0], name), _complement(comparer, tree.args[1], name))
    if head == "rel":
        return _relation(comparer, tree, name)
    raise NoRealSet("something other than a set of numbers")


def _relation(comparer: Comparer, tree: Expr, name: str) -> list[Span]:
    left, right = tree.args
    relation = tree.name
    if relation == "in":
        if left.head != "sym":
            raise NoRealSet("membership of something other than an unknown")
        return _read(comparer, right, name)
    if relation == "notin":
        return _complement(comparer, right, name)
    if not name:
        raise NoRealSet("a relation without an unknown")
    if not is_value(left) or not is_value(right) or relation == "~":
        raise NoRealSet("a relation between things other than numbers")
    if left.head == "sym" and name not in symbols(right):
        return _half_line(relation, right)
    if right.head == "sym" and name not in symbols(left):
        return _half_line(FLIPPED[relation], left)
    bounded = _absolute_bound(left, relation, right) or _absolute_bound(right, FLIPPED[relation], left)
    if bounded is None:
        return _solved(comparer, node("add", left, neg(right)), relation, name)
    return _read(comparer, bounded, name)


def _half_line(relation: str, bound: Expr) -> list[Span]:
    low = neg(INFINITY)
    if relation in ("<", "<="):
        return [_between(low, False, bound, relation == "<=")]
    if relation in (">", ">="):
        return [_between(bound, relation == ">=", INFINITY, False)]
    if relation == "=":
        return [_between(bound, True, bound, True)]
    return [_between(low, False, bound, False), _between(bound, False, INFINITY, False)]


def _absolute_bound(left: Expr, relation: str, right: Expr) -> Expr | None:
    """|u| < c as -c < u < c, and |u| > c as u < -c or u > c, for positive c."""
    if left.head != "abs" or symbols(right) or relation not in FLIPPED or relation in ("=", "!="):
        return None
    size = numeric.approximate(right)
    if size is None or size <= 0:
        return None
    inner = left.args[0]
    if relation in ("<", "<="):
        above = node("rel", neg(right), inner, value=relation)
        return node("and", above, node("rel", inner, right, value=relation))
    below = node("rel", inner, neg(right), value=FLIPPED[relation])
    return node("or", below, node("rel", inner, right, value=relation))


def _solved(comparer: Comparer, difference: Expr, relation: str, name: str) -> list[Span]:
    """The solutions of `difference relation 0`: linear ones are solved here, others by sympy."""
    at_zero = substitute(difference, {name: num(0)})
    slope = node("add", substitute(difference, {name: num(1)}), neg(at_zero))
    line = node("add", node("mul", slope, Expr("sym", (), name)), at_zero)
    steepness = numeric.approximate(slope)
    if name and steepness and comparer.same_for_base(difference, line, "e"):
        root = neg(node("div", at_zero, slope))
        return _half_line(relation if steepness > 0 else FLIPPED[relation], root)
    if relation == "!=":
        raise NoRealSet("an inequation that is not linear")
    if relation == "=" or not name:
        raise NoRealSet("an equation")
    rows = comparer.question("solve_inequality", difference, relation, name)
    if not isinstance(rows, list):
        raise NoRealSet("an inequality that was not solved")
    return [_between(_end(a), a_closed, _end(b), b_closed) for a, a_closed, b, b_closed in rows]


def _end(text: str) -> Expr:
    text = text.replace("oo", "\\infty") if text in ("oo", "-oo") else text
    parsed = parse_expression(text.replace("\\left", "").replace("\\right", ""))
    if isinstance(parsed, Unreadable):
        raise NoRealSet(f"an end that is not read: {text}")
    return parsed


def _complement(comparer: Comparer, tree: Expr, name: str) -> list[Span]:
    """The real numbers outside a set or outside listed points."""
    if is_value(tree):
        tree = node("set", tree)
    if tree.head == "rel" and tree.value == "=":
        tree = node("set", tree.args[1])
    if tree.head == "list":
        tree = node("set", *(arg.args[1] if arg.head == "rel" else arg for arg in tree.args))
    spans = [WHOLE]
    for inside in _ordered(_read(comparer, tree, name)):
        spans = _intersection(spans, _outside(inside))
    return spans


def _position(end: Expr) -> float:
    value = numeric.approximate(end)
    if value is None:
        raise NoRealSet("an end that is not a real number")
    return value


def _between(low: Expr, low_closed: bool, high: Expr, high_closed: bool) -> Span:
    return Span(low, low_closed and not _is_infinite(low), high, high_closed and not _is_infinite(high))


def _interval(low: Expr, low_closed: bool, high: Expr, high_closed: bool) -> Span:
    """An interval as written; one whose ends are reversed is no set, not the empty one."""
    span = _between(low, low_closed, high, high_closed)
    if not symbols(low) and not symbols(high) and _is_empty(span):
        raise NoRealSet("an interval with its ends reversed")
    return span


def _is_infinite(expr: Expr) -> bool:
    return expr == INFINITY or expr == neg(INFINITY)


def _ordered(spans: Iterable[Span]) -> tuple[Span, ...]:
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


def _intersection(left: Iterable[Span], right: Iterable[Span]) -> list[Span]:
    others = list(right)
    found = [
        Span(
            *_inner([(a.low, a.low_closed), (b.low, b.low_closed)], is_low=True),
            *_inner([(a.high, a.high_closed), (b.high, b.high_closed)], is_low=False),
        )
        for a in left
        for b in others
    ]
    if len(found) == 1 and (symbols(found[0].low) or symbols(found[0].high)):
        return found
    return [span for span in found if not _is_empty(span)]


def _inner(ends: Sequence[tuple[Expr, bool]], *, is_low: bool) -> tuple[Expr, bool]:
    """Of two ends on one side, the one that both spans reach; it belongs to both where it does to each."""
    bounded = [end for end in ends if not _is_infinite(end[0])]
    if len(bounded) < 2:
        return (bounded or ends)[0]
    at, other = (_position(end) for end, _ in ends)
    if _same(at, other):
        return ends[0][0], ends[0][1] and ends[1][1]
    return ends[0] if (at > other) == is_low else ends[1]


def _outside(span: Span) -> list[Span]:
    ends = [
        Span(neg(INFINITY), False, span.low, not span.low_closed),
        Span(span.high, not span.high_closed, INFINITY, False),
    ]
    return [part for part in ends if not (_is_infinite(part.low) and _is_infinite(part.high))]


_TRIVIAL = ((), (WHOLE,))
_NAMED = {
    "R": [WHOLE],
    "empty": [],
    "R+": [_between(num(0), False, INFINITY, False)],
    "R-": [_between(neg(INFINITY), False, num(0), False)],
}
