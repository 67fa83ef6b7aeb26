"""Named values: x = 5, f(2) = 7, AB = 5. Several of them are a system."""

from collections.abc import Sequence

from verl_lite.verifiers.math.answers import equations
from verl_lite.verifiers.math.answers.ratios import same_ratio
from verl_lite.verifiers.math.answers.same_value import same_value
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, is_value, node, num, sym, symbols, walk

_POLYNOMIAL = frozenset("sym num add neg mul div pow const".split())


def assignment(tree: Expr) -> tuple[str, Expr] | None:
    """(name, value) of "x = 5", "f(2) = 7", "angle ABC = 30": a name and its value."""
    if tree.head == "chain" and all(link.value in ("=", "~") for link in tree.args):
        first = assignment(tree.args[0])
        last = tree.args[-1].args[1]
        return None if first is None else (first[0], last)
    if tree.head != "rel" or tree.value not in ("=", "~", "in"):
        return None
    left, right = tree.args
    if tree.value == "in":
        is_one = right.head == "set" and len(right.args) == 1 and left.head == "sym"
        return (left.name, right.args[0]) if is_one else None
    if not symbols(left) & symbols(right):
        is_letter = left.head == "const" and left.name in ("i", "e") and left not in walk(right)  # i = 3
        if left.head == "sym" or is_letter:
            return left.name, right
        is_length = left.head == "abs" or (left.head == "func" and left.name == "conj")
        if is_length and left.args[0].head == "mul" and _is_product_of_names(left.args[0]):
            left = left.args[0]  # |AB|, \overline{AB}
        is_power = left.head == "pow" and left.args[0].head == "sym" and not is_value(right)  # A^{-1}
        is_segment = left.head in ("call", "abs") or _is_product_of_names(left)  # AB = 5
        if is_power or is_segment or _is_named_object(left):  # cos A = 1/2, A cap B = (0, 3), (x, y) = (1, 2)
            return _printed(left), right
    if right.head == "sym" and is_value(left) and not symbols(left):
        return right.name, left
    return None


def named_point(tree: Expr) -> Expr | None:
    """A(1, 2) as A = (1, 2); None for other trees."""
    if tree.head == "call" and len(tree.args) > 1:
        name, point = sym(tree.name), node("tuple", *tree.args)
    elif tree.head == "mul" and tree.args[1].head == "tuple" and tree.args[0].head == "sym":
        name, point = tree.args
    else:
        return None
    return node("rel", name, point, value="=") if len(name.name) == 1 and name.name.isupper() else None


def with_named_calls(tree: Expr) -> Expr:
    """0 < f(x) < 1 with f(x) as the unknown."""
    if tree.head == "call":
        return Expr("sym", (), f"{tree.name}({','.join(sorted(symbols(tree)))})")
    inner = tuple(map(with_named_calls, tree.args))
    return Expr(tree.head, inner, tree.value, tree.places) if inner else tree


def stated(tree: Expr) -> Expr:
    """The value that an equation states of a formula: 7 of "a + b = 7". The tree itself for everything else.

    An equation to be solved states nothing: x^2 = 5, or a sum that is 0.
    """
    is_known = tree.head == "congruence" and (tree.args[0].head == "sym" or not symbols(tree.args[0]))
    if is_known and not symbols(tree.args[1]):
        return tree.args[1]
    if tree.head != "rel" or tree.value not in ("=", "~") or assignment(tree) is not None:
        return unassigned(tree)
    left, right = tree.args
    is_statement = is_value(left) and is_value(right) and symbols(left) and not symbols(right)
    if not is_statement or _is_to_be_solved(left) or (right == num(0) and left.head == "add"):
        return tree
    return right


def _is_to_be_solved(left: Expr) -> bool:
    """x + 1, x^2, 2x + 3y: a formula whose equation asks for its unknowns."""
    is_polynomial = {part.head for part in walk(left)} <= _POLYNOMIAL
    return is_polynomial and (len(symbols(left)) == 1 or _has_coefficient(left))


def _has_coefficient(left: Expr) -> bool:
    """A number other than an exponent: 2x + 3y is a curve's formula, x + y and xy are sought values."""
    if left.head == "pow":
        return _has_coefficient(left.args[0])
    return left.is_number or any(map(_has_coefficient, left.args))


def _is_named_object(left: Expr) -> bool:
    """What is called by a formula in names: the cosine of an angle, a union of sets, a point."""
    if left.head == "func" and left.name != "sqrt":
        return bool(symbols(left)) and all(arg.head in ("sym", "call") for arg in left.args)
    parts = left.args if left.head in ("union", "intersect", "minus", "tuple") else ()
    return len(parts) > 1 and all(part.head in ("sym", "union", "intersect", "minus") for part in parts)


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
    if tree.head == "chain" and all(link.value == "=" and link.args[0].head == "sym" for link in tree.args):
        value = tree.args[-1].args[1]  # x = y = z = 1
        return (
            None
            if symbols(value) or not is_value(value)
            else {link.args[0].name: value for link in tree.args}
        )
    if tree.head not in ("list", "and", "set") or tree.value == "or":
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
        both_equations = response.head == reference.head == "rel" and is_value(value)
        if both_equations and symbols(reference) == symbols(response):
            return equations.same_equation(comparer, reference, response)
        return other[0] == name and same_part(comparer, value, other[1])
    if response.head == "rel" and response.value == "=":
        return reference.head == "rel" and equations.same_equation(comparer, reference, response)
    return same_part(comparer, value, response)


def compare_statement(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    """The value alone for "a + b = 7". In x, y and z the equation may be a curve, and is one."""
    value = stated(reference)
    if (
        reference.head == "rel"
        and reference.value == "="
        and not symbols(reference)
        and all(map(is_value, reference.args))
    ):
        value = reference.args[1]  # log_2 8 = 3
    if reference.head not in ("rel", "congruence") or value is reference:
        return None
    if response.head == "ratio" and is_value(value):
        return same_ratio(comparer, value, response)
    if not is_value(response):
        return None
    if assignment(reference) is not None:
        return None
    if reference.head == "rel" and symbols(reference) & {"x", "y", "z"}:
        return None
    return same_value(comparer, value, response)


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
