"""Collections: sets, bare lists, and plus-minus, which is two values. Order does not count."""

import re
from collections.abc import Sequence

from verl_lite.verifiers.math.answers.assignments import assignment, same_in_order, same_part, unassigned
from verl_lite.verifiers.math.answers.vectors import as_vector
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, is_value, neg, node, num, walk
from verl_lite.verifiers.math.reading.parser import ExpressionParser

MAX_UNORDERED = 80  # members of a set that are matched pair by pair


def read_plus_minus(parser: ExpressionParser, signs: str) -> Expr:
    """A leading plus-minus, as in "\\pm 2"."""
    return node("pm", num(0), parser.expression(10), value=signs)


def alternatives(tree: Expr) -> tuple[Expr, ...]:
    """Both readings of a plus-minus (upper signs, lower signs); the tree alone if it has none."""
    if not any(part.head == "pm" for part in walk(tree)):
        return (tree,)
    return _chosen(tree, upper=True), _chosen(tree, upper=False)


def _chosen(tree: Expr, *, upper: bool) -> Expr:
    args = tuple(_chosen(arg, upper=upper) for arg in tree.args)
    if tree.head != "pm":
        return Expr(tree.head, args, tree.value, tree.places) if args else tree
    adds = upper == (tree.value == "+-")
    right = args[1] if adds else _negated(args[1])
    return right if args[0] == num(0) else node("add", args[0], right)


def _negated(tree: Expr) -> Expr:
    """-(1, 2) is (-1, -2)."""
    return Expr(tree.head, tuple(map(neg, tree.args))) if tree.head in ("tuple", "row") else neg(tree)


def members(tree: Expr) -> tuple[Expr, ...] | None:
    """The values of a set or bare list, of "x = 3 or x = 5" and of a plus-minus; None for others."""
    if tree.head in ("set", "list", "or"):
        named = [assignment(item) for item in tree.args]
        if all(pair is not None for pair in named) and len({pair[0] for pair in named if pair}) == 1:
            return tuple(value for pair in named if pair for value in alternatives(pair[1]))
        first = named[0]
        items = tree.args
        if first is not None and all(pair is None for pair in named[1:]):  # x = 3, 5
            items = (first[1], *tree.args[1:])
        if tree.head == "or" and items == tree.args:
            return None
        return tuple(value for item in items for value in alternatives(item))
    named_value = assignment(tree)
    if named_value is not None:
        return members(named_value[1])
    if tree.head == "rel" and tree.value == "in" and tree.args[1].head == "set":
        return members(tree.args[1])
    both = alternatives(tree)
    if len(both) == 2:
        return both
    return () if tree.head == "named" and tree.value == "empty" else None


def compare(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    """The same members in any order; for a bare list also a tuple, in the same order."""
    ours = members(reference)
    if ours is None:
        return None
    if _names_clash(reference, response):
        return False
    given = unassigned(response)
    if given.head == "row" and reference.head == "list":  # [1, 2, 3]
        given = node("list", *given.args)
        response = given
    if given.head == "tuple" and reference.head == "list":
        return same_in_order(comparer, ours, given.args)
    theirs = members(response)
    if theirs is None and is_value(given):
        theirs = (given,)
    if theirs is None or (reference.head == "list" and not _repeats_agree(comparer, ours, theirs)):
        return False
    return _same_members(comparer, ours, theirs)


def _repeats_agree(comparer: Comparer, ours: Sequence[Expr], theirs: Sequence[Expr]) -> bool:
    """Whether what a list names several times is named as often: the angles 36, 72, 72."""
    if len(ours) > MAX_UNORDERED or len(set(ours)) == len(ours):
        return True
    repeated = {item for item in ours if ours.count(item) > 1}
    return all(
        sum(same_part(comparer, item, other) for other in theirs) == tuple(ours).count(item)
        for item in repeated
    )


def _names_clash(reference: Expr, response: Expr) -> bool:
    """a = 1, b = -1 is not a = 1 or -1, and x = 1 or y = 2 is not both."""
    ours, theirs = _names(reference), _names(response)
    if not ours or not theirs:
        return False
    if len(theirs) == 1 and {re.sub(r"_[0-9]\Z", "", name) for name in ours} == theirs:
        return False  # x_1 = 1, x_2 = 3 and x = 1 or x = 3
    return ours != theirs or (len(ours) > 1 and (reference.value == "or") != (response.value == "or"))


def _names(tree: Expr) -> set[str]:
    items = tree.args if tree.head in ("list", "set", "and", "or") else (tree,)
    return {named[0] for item in items if (named := assignment(item)) is not None}


def compare_plus_minus(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    both = alternatives(reference)
    if len(both) != 2 or reference.head in ("list", "set", "or"):
        return None
    theirs = None if _names_clash(reference, response) else members(response)
    return theirs is not None and _same_members(comparer, [unassigned(one) for one in both], theirs)


def _same_members(comparer: Comparer, ours: Sequence[Expr], theirs: Sequence[Expr]) -> bool:
    """Whether each member has an equal on the other side, regardless of order and repetition."""
    if max(len(ours), len(theirs)) > MAX_UNORDERED:
        if all(item.is_number for item in (*ours, *theirs)):
            return {item.value for item in ours} == {item.value for item in theirs}
        return same_in_order(comparer, ours, theirs)
    met: set[int] = set()
    for item in ours:
        found = next((at for at, other in enumerate(theirs) if same_part(comparer, item, other)), None)
        if found is None:
            return False
        met.add(found)
    return all(
        at in met or any(same_part(comparer, item, other) for item in ours) for at, other in enumerate(theirs)
    )


def count_parts(tree: Expr) -> int:
    """The number of values in a list, set, tuple or system; 1 for everything else."""
    parts = as_vector(tree) or members(tree)
    return len(parts) if parts else 1


def share_of_parts(comparer: Comparer, reference: Expr, response: Expr) -> float:
    """How much of a list, set or tuple is right, in [0, 1]: matches over the larger number of parts."""
    given = unassigned(response)
    vector = as_vector(reference)
    if vector is not None:
        others = as_vector(given) or (given.args if given.head == "list" else ())
        hits = sum(same_part(comparer, a, b) for a, b in zip(vector, others, strict=False))
        return hits / max(len(vector), len(others))
    ours = members(reference)
    theirs = members(response) or ((given,) if is_value(given) else ())
    if not ours or len(theirs) > 100 or len(ours) > 100:
        return 0.0
    hits = sum(any(same_part(comparer, item, other) for other in theirs) for item in ours)
    return hits / max(len(ours), len(theirs))
