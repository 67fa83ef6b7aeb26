"""Relations that are compared as they stand: a > b > c, x + y < 3, conditions in several unknowns."""

from collections.abc import Sequence

from verl_lite.verifiers.math.answers.assignments import same_in_order, same_part
from verl_lite.verifiers.math.answers.equations import proportion
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, is_value, node, symbols

FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "="}


def same_relation(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    """The same relation between equal sides, either way round."""
    if reference == response:
        return True
    if reference.head == response.head and reference.head in ("and", "or"):
        return _same_in_any_order(comparer, reference.args, response.args)
    if reference.head == response.head == "chain" and reference.args[0].value != response.args[0].value:
        response = node("chain", *map(_turned, response.args[::-1]))  # c > b > a
    if reference.head != "rel" or response.head != "rel":
        pairs = zip(reference.args, response.args, strict=False)
        shapes = [(side.head, side.value, len(side.args)) for side in (reference, response)]
        return shapes[0] == shapes[1] and all(same_part(comparer, a, b) for a, b in pairs)
    if not all(is_value(side) for side in (*reference.args, *response.args)):
        return False
    if not symbols(reference):
        turned = response if reference.value == response.value else _turned(response)
        return reference.value == turned.value and same_in_order(comparer, reference.args, turned.args)
    ours, other = (node("add", side.args[0], node("neg", side.args[1])) for side in (reference, response))
    factor = proportion(ours, other)
    if factor is None:
        return False
    return reference.name == (response.name if factor > 0 else FLIPPED.get(response.name))


def _same_in_any_order(comparer: Comparer, ours: Sequence[Expr], theirs: Sequence[Expr]) -> bool:
    """b < 0 and a > 0 is a > 0 and b < 0."""
    if len(ours) != len(theirs):
        return False
    left = list(theirs)
    for part in ours:
        found = next((other for other in left if same_part(comparer, part, other)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _turned(relation: Expr) -> Expr:
    return node("rel", *relation.args[::-1], value=FLIPPED.get(relation.name, relation.name))
