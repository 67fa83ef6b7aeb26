"""Equations, assignments, functions and ratios."""

from __future__ import annotations

from fractions import Fraction

from verl_lite.verifiers.math.algebra.normal_form import NoForm, NormalForms
from verl_lite.verifiers.math.algebra.ring import Poly, Ring, TooBig
from verl_lite.verifiers.math.answers.values import is_value, renamed, same_value
from verl_lite.verifiers.math.comparer import Judge, exact_value
from verl_lite.verifiers.math.expressions import Expr, neg, node, symbols

__all__ = [
    "assignment",
    "proportion",
    "same_congruence",
    "same_equation",
    "same_function",
    "same_ratio",
    "systems",
    "unassigned",
]


def assignment(tree: Expr) -> tuple[str, Expr] | None:
    """(name, value) of "x = 5", "f(2) = 7", "angle ABC = 30": a named thing and what it is."""
    if tree.head == "chain" and all(link.value in ("=", "~") for link in tree.args):
        first = assignment(tree.args[0])
        last = tree.args[-1].args[1]
        return None if first is None or not is_value(last) else (first[0], last)
    if tree.head != "rel" or tree.value not in ("=", "~", "in"):
        return None
    left, right = tree.args
    if tree.value == "in":
        return (
            (left.name, right.args[0])
            if right.head == "set" and len(right.args) == 1 and left.head == "sym"
            else None
        )
    if left.head == "sym" and left.name not in symbols(right):
        return left.name, right
    if left.head in ("call", "abs") and not _shares(left, right):
        return _printed(left), right
    if _is_product_of_names(left) and not _shares(left, right):
        return _printed(left), right  # AB = 5: the length of a segment
    if right.head == "sym" and is_value(left) and not symbols(left):
        return right.name, left
    return None


def _shares(left: Expr, right: Expr) -> bool:
    return bool(symbols(left) & symbols(right))


def _is_product_of_names(expr: Expr) -> bool:
    if expr.head == "mul":
        return all(_is_product_of_names(arg) for arg in expr.args)
    return expr.head == "sym" and expr.name[:1].isupper()


def _printed(expr: Expr) -> str:
    parts = ",".join(_printed(arg) for arg in expr.args)
    return f"{expr.head}:{expr.value}({parts})"


def unassigned(tree: Expr) -> Expr:
    """The value of an assignment, or of "2 + 3 = 5"; the tree itself for everything else."""
    named = assignment(tree)
    if named is not None:
        return named[1]
    if tree.head == "lambda":
        return tree.args[-1]
    return tree


def same_equation(judge: Judge, reference: Expr, response: Expr) -> bool:
    """Whether two equations hold for the same values: equal up to a factor, or solved by sympy."""
    ours, theirs = _difference(reference), _difference(response)
    if symbols(ours) != symbols(theirs) or not symbols(ours):
        return False
    judge.used("algebra")
    if proportion(ours, theirs) is not None:
        return True
    names = sorted(symbols(ours))
    if len(names) != 1 or (_is_linear(ours) and _is_linear(theirs)):
        return False
    return judge.question("same_solutions", ours, theirs, names[0]) is True


def _difference(equation: Expr) -> Expr:
    return node("add", equation.args[0], neg(equation.args[1]))


def proportion(ours: Expr, theirs: Expr) -> Fraction | None:
    """The rational c with ours = c * theirs, after clearing denominators; None where there is none."""
    try:
        forms = NormalForms()
        left, right = (_cleared(forms.ring, forms.form(side).top) for side in (ours, theirs))
    except (NoForm, TooBig, RecursionError):
        return None
    if len(left) != len(right) or not left or min(left) not in right:
        return None
    factor = left[min(left)] / right[min(left)]
    agree = all(right.get(monomial, Fraction(0)) * factor == value for monomial, value in left.items())
    return factor if agree else None


def _is_linear(difference: Expr) -> bool:
    """Whether `difference` is a x + b with rational a and b."""
    try:
        form = NormalForms().form(difference)
    except (NoForm, TooBig, RecursionError):
        return False
    return len(form.bottom) == 1 and all(sum(e for _, e in m) in (0, 1) and len(m) < 2 for m in form.top)


def _cleared(ring: Ring, poly: Poly) -> Poly:
    """`poly` times the symbols that stand in its terms' denominators."""
    lowest: dict[int, Fraction] = {}
    for monomial in poly:
        for generator, exponent in monomial:
            if exponent < 0 and ring.names[generator][0] == "sym":
                lowest[generator] = min(lowest.get(generator, Fraction(0)), exponent)
    lift = tuple(sorted((generator, -exponent) for generator, exponent in lowest.items()))
    return ring.multiply_polys(poly, {lift: Fraction(1)}) if lift else poly


def same_function(judge: Judge, reference: Expr, response: Expr) -> bool:
    """f(x) = 2x against f(n) = 2n (bound variables), y = 2x, or the bare 2x in the same variable."""
    *parameters, body = reference.args
    if response.head == "lambda":
        *others, other_body = response.args
        if len(others) != len(parameters):
            return False
        if reference.name and response.name and reference.name != response.name:
            return False
        names, other_names = ({part.name for part in group} for group in (parameters, others))
        if symbols(body) & (other_names - names) or symbols(other_body) & (names - other_names):
            return False  # a free variable of one side is bound on the other
        return same_value(judge, body, renamed(other_body, tuple(others), tuple(parameters)))
    if response.head == "rel" and response.value == "=" and response.args[0].head == "sym":
        if response.args[0].name in symbols(body):
            return False
        response = response.args[1]
    return is_value(response) and is_value(body) and same_value(judge, body, response)


def same_ratio(judge: Judge, reference: Expr, response: Expr) -> bool:
    """3:4 = 6:8 = 3/4: proportional parts in the same order."""
    if reference.head != "ratio":
        reference, response = response, reference
    if response.head != "ratio":
        if len(reference.args) != 2 or not is_value(response):
            return False
        return judge.same(node("div", *reference.args), response)
    if len(reference.args) != len(response.args):
        return False
    first, other = reference.args[0], response.args[0]
    return all(
        judge.same(node("mul", a, other), node("mul", b, first))
        for a, b in zip(reference.args[1:], response.args[1:], strict=True)
    )


def same_congruence(judge: Judge, reference: Expr, response: Expr) -> bool:
    """n = 3 (mod 5) against n = 8 (mod 5): the same modulus, sides that differ by a multiple of it."""
    if response.head != "congruence" or not judge.same(reference.args[2], response.args[2]):
        return False
    modulus = exact_value(reference.args[2])
    ours, theirs = (node("add", side.args[0], neg(side.args[1])) for side in (reference, response))
    if symbols(ours) != symbols(theirs) or not modulus:
        return False
    apart = exact_value(node("add", ours, neg(theirs)))
    return apart is not None and (apart / modulus).denominator == 1


def systems(tree: Expr) -> dict[str, Expr] | None:
    """{"x": 1, "y": 2} of "x = 1, y = 2" or "(x, y) = (1, 2)"; None for anything else."""
    if tree.head == "rel" and tree.value == "=" and tree.args[0].head == tree.args[1].head == "tuple":
        left, right = tree.args
        if len(left.args) != len(right.args) or any(arg.head != "sym" for arg in left.args):
            return None
        return {name.name: value for name, value in zip(left.args, right.args, strict=True)}
    if tree.head not in ("list", "and"):
        return None
    named = [assignment(item) for item in tree.args]
    found = {pair[0]: pair[1] for pair in named if pair is not None}
    return found if len(found) == len(tree.args) > 1 else None
