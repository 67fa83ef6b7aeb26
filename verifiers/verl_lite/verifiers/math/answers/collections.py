"""Answers of several parts: lists, sets, tuples, matrices, plus-minus."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from verl_lite.verifiers.math.answers.equations import assignment
from verl_lite.verifiers.math.expressions import Expr, neg, node, num, substitute, symbols, walk

__all__ = [
    "Same",
    "alternatives",
    "as_matrix",
    "as_vector",
    "members",
    "same_in_order",
    "same_members",
    "unit_vector_entries",
]

MAX_UNORDERED = 80  # members of a set that are matched pair by pair

Same = Callable[[Expr, Expr], bool]


def alternatives(tree: Expr) -> tuple[Expr, ...]:
    """Both readings of a plus-minus (upper signs, lower signs); just the tree where there is none."""
    if not any(part.head == "pm" for part in walk(tree)):
        return (tree,)
    return _chosen(tree, upper=True), _chosen(tree, upper=False)


def _chosen(tree: Expr, *, upper: bool) -> Expr:
    args = tuple(_chosen(arg, upper=upper) for arg in tree.args)
    if tree.head != "pm":
        return Expr(tree.head, args, tree.value, tree.places) if args else tree
    adds = upper == (tree.value == "+-")
    right = args[1] if adds else neg(args[1])
    return right if args[0] == num(0) else node("add", args[0], right)


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


def same_members(ours: Sequence[Expr], theirs: Sequence[Expr], same: Same) -> bool:
    """Whether each member has an equal on the other side, whatever the order and repetitions."""
    if max(len(ours), len(theirs)) > MAX_UNORDERED:
        if all(item.is_number for item in (*ours, *theirs)):
            return {item.value for item in ours} == {item.value for item in theirs}
        return same_in_order(ours, theirs, same)
    remaining = list(theirs)
    for item in ours:
        matches = [other for other in remaining if same(item, other)]
        if not matches and not any(same(item, other) for other in theirs):
            return False
        remaining = [other for other in remaining if other not in matches]
    return not remaining


def same_in_order(ours: Sequence[Expr], theirs: Sequence[Expr], same: Same) -> bool:
    return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))


def unit_vector_entries(tree: Expr) -> tuple[Expr, ...] | None:
    """(a, b, c) of a i + b j + c k, None for an expression without the vectors j or k."""
    names = symbols(tree)
    if not names or not names <= {"j", "k"}:
        return None
    zero = {"i": num(0), "j": num(0), "k": num(0)}
    letters = _with_letter_i(tree)
    axes = "ijk" if "k" in names else "ij"
    return tuple(substitute(letters, zero | {axis: num(1)}) for axis in axes)


def _with_letter_i(tree: Expr) -> Expr:
    if tree == Expr("const", (), "i"):
        return Expr("sym", (), "i")
    return Expr(tree.head, tuple(map(_with_letter_i, tree.args)), tree.value, tree.places)


def as_matrix(tree: Expr) -> tuple[tuple[Expr, ...], ...] | None:
    """The rows of a matrix, also of plain [[1, 2], [3, 4]]; None where it is none."""
    if tree.head in ("mul", "div") and (scaled := _scaled_matrix(tree)) is not None:
        return scaled
    if tree.head == "matrix":
        return tuple(row.args for row in tree.args)
    if tree.head in ("row", "interval") and (tree.head == "row" or tree.value == "[]"):
        rows = [_plain_row(item) for item in tree.args]
        if all(row is not None for row in rows) and len({len(row) for row in rows if row is not None}) == 1:
            return tuple(row for row in rows if row is not None)
    return None


def _scaled_matrix(tree: Expr) -> tuple[tuple[Expr, ...], ...] | None:
    """2 M, M / 2 entry by entry."""
    left, right = tree.args
    if right.head == "matrix" and left.head != "matrix" and tree.head == "mul":
        return tuple(tuple(node("mul", left, entry) for entry in row.args) for row in right.args)
    if left.head == "matrix" and right.head != "matrix":
        return tuple(tuple(node(tree.head, entry, right) for entry in row.args) for row in left.args)
    return None


def _plain_row(tree: Expr) -> tuple[Expr, ...] | None:
    if tree.head in ("row", "tuple") or (tree.head == "interval" and tree.value == "[]"):
        return tree.args
    return None


def as_vector(tree: Expr) -> tuple[Expr, ...] | None:
    """The entries of a tuple or of a matrix of one column or one row."""
    if tree.head == "tuple":
        return tree.args
    if tree.head == "row" and as_matrix(tree) is None:
        return tree.args
    rows = as_matrix(tree)
    if rows is None:
        return None
    if all(len(row) == 1 for row in rows):
        return tuple(row[0] for row in rows)
    return rows[0] if len(rows) == 1 else None
