"""Named values: x = 5, f(2) = 7, AB = 5. Several of them are a system."""

from collections.abc import Sequence

from verl_lite.verifiers.math.answers import equations
from verl_lite.verifiers.math.answers.functions import same_function
from verl_lite.verifiers.math.answers.same_value import same_value
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, is_value, symbols


def assignment(tree: Expr) -> tuple[str, Expr] | None:
    """(name, value) of "x = 5", "f(2) = 7", "angle ABC = 30": a name and its value."""
    if tree.head == "chain" and all(link.value in ("=", "~") for link in tree.args):
        first = assignment(tree.args[0])
        last = tree.args[-1].args[1]
        return None if first is None or not is_value(last) else (first[0], last)
    if tree.head != "rel" or tree.value not in ("=", "~", "in"):
        return None
    left, right = tree.args
    if tree.value == "in":
        is_one = right.head == "set" and len(right.args) == 1 and left.head == "sym"
        return (left.name, right.args[0]) if is_one else None
    if not symbols(left) & symbols(right):
        if left.head == "sym":
            return left.name, right
        if left.head in ("call", "abs") or _is_product_of_names(left):  # AB = 5: the length of a segment
            return _printed(left), right
    if right.head == "sym" and is_value(left) and not symbols(left):
        return right.name, left
    return None


def _is_product_of_names(expr: Expr) -> bool:
    if expr.head == "mul":
        return all(_is_product_of_names(arg) for arg in expr.args)
    return expr.head == "sym" and expr.name[:1].isupper()


def _printed(expr: Expr) -> str:
    parts = ",".join(_printed(arg) for arg in expr.args)
    return f"{expr.head}:{expr.value}({parts})"


def unassigned(tree: Expr) -> Expr:
    """The value of an assignment, or of "2 + 3 = 5"; the tree itself for everything else."""
    if tree.head == "lambda":
        return tree.args[-1]
    named = assignment(tree)
    return tree if named is None else named[1]


def systems(tree: Expr) -> dict[str, Expr] | None:
    """{"x": 1, "y": 2} of "x = 1, y = 2" or "(x, y) = (1, 2)"; None for anything else."""
    if tree.head == "rel" and tree.value == "=" and tree.args[0].head == tree.args[1].head == "tuple":
        left, right = tree.args
        if len(left.args) != len(right.args) or any(arg.head != "sym" for arg in left.args):
            return None
        return {name.name: value for name, value in zip(left.args, right.args, strict=True)}
    if tree.head not in ("list", "and") or tree.value == "or":
        return None
    named = [assignment(item) for item in tree.args]
    found = {pair[0]: pair[1] for pair in named if pair is not None}
    return found if len(found) == len(tree.args) > 1 else None


def compare(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    """The same name and value; the value alone; an equation with the same solutions.

    A reference that names nothing is compared as an equation.
    """
    named = assignment(reference)
    if named is None:
        return equations.compare(comparer, reference, response)
    name, value = named
    other = assignment(response)
    if other is not None:
        if other[0] == name and is_value(value):
            return is_value(other[1]) and same_value(comparer, value, other[1])
        if response.head == reference.head == "rel" and symbols(reference) == symbols(response):
            return equations.same_equation(comparer, reference, response)
        return other[0] == name and same_part(comparer, value, other[1])
    if response.head == "lambda":
        bound = symbols(response)
        return is_value(value) and same_function(comparer, response, value) and symbols(value) <= bound
    if response.head == "rel" and response.value == "=":
        return reference.head == "rel" and equations.same_equation(comparer, reference, response)
    return same_part(comparer, value, response)


def same_part(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    """Whether two parts of answers are equal: values, which may be named, or answers themselves."""
    known = comparer.same_parts.get((reference, response))
    if known is None:
        comparer.spend(5)
        known = comparer.same_parts[reference, response] = _same_part(comparer, reference, response)
    return known


def _same_part(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    if is_value(reference):
        found = unassigned(response)
        return is_value(found) and same_value(comparer, reference, found)
    return any(comparison(comparer, reference, response) is True for _, comparison in comparer.tree_types)


def same_in_order(comparer: Comparer, ours: Sequence[Expr], theirs: Sequence[Expr]) -> bool:
    pairs = zip(ours, theirs, strict=False)
    return len(ours) == len(theirs) and all(same_part(comparer, a, b) for a, b in pairs)
