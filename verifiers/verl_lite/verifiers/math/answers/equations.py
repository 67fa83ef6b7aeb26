"""Equations: equal when their solutions are."""

from fractions import Fraction

from verl_lite.verifiers.math.algebra.normal_form import NormalForms
from verl_lite.verifiers.math.algebra.powers import NoForm
from verl_lite.verifiers.math.algebra.ring import Poly, Ring, TooBig
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, is_value, neg, node, symbols


def compare(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    if reference.head == response.head == "chain" and len(reference.args) == len(response.args):
        links = zip(reference.args, response.args, strict=True)  # (x - 1) / 2 = (y + 3) / 4 = z
        return all(compare(comparer, ours, theirs) is True for ours, theirs in links)
    if any(side.head != "rel" or side.value != "=" for side in (reference, response)):
        return None
    return same_equation(comparer, reference, response)


def same_equation(comparer: Comparer, reference: Expr, response: Expr) -> bool:
    """Whether two equations hold for the same values: equal up to a factor, or solved by sympy."""
    if not all(is_value(side) for side in (*reference.args, *response.args)):
        return False
    ours, theirs = _difference(reference), _difference(response)
    if symbols(ours) != symbols(theirs) or not symbols(ours):
        return False
    comparer.used("algebra")
    if proportion(ours, theirs) is not None:
        return True
    names = sorted(symbols(ours))
    if len(names) != 1 or (_is_linear(ours) and _is_linear(theirs)):
        return False
    return comparer.question("same_solutions", ours, theirs, names[0]) is True


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
    """`poly` times the symbols in its terms' denominators."""
    lowest: dict[int, Fraction] = {}
    for monomial in poly:
        for generator, exponent in monomial:
            if exponent < 0 and ring.names[generator][0] == "sym":
                lowest[generator] = min(lowest.get(generator, Fraction(0)), exponent)
    lift = tuple(sorted((generator, -exponent) for generator, exponent in lowest.items()))
    return ring.multiply_polys(poly, {lift: Fraction(1)}) if lift else poly
