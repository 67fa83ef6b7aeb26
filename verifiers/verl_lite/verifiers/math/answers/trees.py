"""Answers that the grammar reads: the reference's tree decides the type."""

from verl_lite.verifiers.math.algebra.normal_form import NormalForms
from verl_lite.verifiers.math.algebra.powers import NoForm
from verl_lite.verifiers.math.algebra.ring import TooBig
from verl_lite.verifiers.math.answers import datetimes, quantities
from verl_lite.verifiers.math.answers.answer import Answer
from verl_lite.verifiers.math.answers.quantities import bare_value, quantity_of, read_quantity
from verl_lite.verifiers.math.answers.same_value import base_value
from verl_lite.verifiers.math.answers.texts import is_prose, same_text
from verl_lite.verifiers.math.answers.words import read_word_class, unread
from verl_lite.verifiers.math.comparer import Comparer, Decision, decided
from verl_lite.verifiers.math.expressions import Expr, Unreadable, symbols, walk
from verl_lite.verifiers.verdict import Outcome


def compare(comparer: Comparer, reference: Answer, response: Answer) -> Decision | None:
    """The first type in the table that accepts the reference's tree decides."""
    tree = reference.expr
    if tree is None:
        return None
    if response.expr is None and (said := response.read(read_word_class)):
        return decided(False, "", f"expected a {_kind(tree)}, got {said!r}")
    if tree.head == "base" and response.key.upper().lstrip("0") == tree.args[0].name.lstrip("0"):
        return Decision(Outcome.CORRECT, "base")
    if tree.head == "percent" and (stated := response.read(read_quantity)) is not None and stated.unit:
        return decided(False, "", "a quantity for a percentage")
    theirs = _tree_of(tree, response)
    if theirs is None:
        return _compare_unread(comparer, reference, response)
    for name, comparison in comparer.tree_types:
        is_same = comparison(comparer, tree, theirs)
        if is_same is not None:
            matched = comparer.tier if name == "value" else name
            return decided(is_same, matched, "; ".join(comparer.notes) or f"not the same {_kind(tree)}")
    return decided(False, "", f"expected a {_kind(tree)}, got a {_kind(theirs)}")


def _tree_of(tree: Expr, response: Answer) -> Expr | None:
    """The response's tree, without its unit: the reference has none."""
    quantity = response.read(read_quantity)
    if quantity is not None and (quantity.is_certain or response.expr is None):
        return bare_value(tree, quantity)
    if response.expr is None and (moved := quantity_of(response)) is not None:
        return bare_value(tree, moved)
    return response.expr


def _compare_unread(comparer: Comparer, reference: Answer, response: Answer) -> Decision:
    """The response has no tree, so the reference is read in other ways too."""
    if reference.read(read_quantity) is not None:
        return quantities.compare_read(comparer, reference, response)
    as_datetimes = datetimes.compare_read(reference, response)
    if as_datetimes is not None and as_datetimes.outcome is Outcome.CORRECT:
        return Decision(Outcome.CORRECT, "time")
    if reference.read(is_prose) and same_text(reference, response):
        return Decision(Outcome.CORRECT, "text")
    return unread(response)


def _kind(tree: Expr) -> str:
    if tree.is_number:
        return "number"
    if tree.head in ("tuple", "set", "list", "interval", "matrix"):
        return tree.head
    return "relation" if tree.head in ("rel", "chain") else "expression"


def read_tree(answer: Answer) -> Expr | None:
    """The tree of an answer; None if it cannot be a reference."""
    return None if answer.expr is None or fault(answer) else answer.expr


def fault(answer: Answer) -> str:
    """Why the tree of an answer cannot be a reference; "" where it can."""
    if isinstance(answer.tree, Unreadable):
        return ""  # forms.py says whether it can be a reference
    for part in walk(answer.tree):
        if part.head == "base" and base_value(part) is None:
            return f"the reference has a digit that base {part.name} does not"
        if part.head == "div" and not symbols(part.args[1]) and _is_zero(part.args[1]):
            return "the reference divides by zero"
    return ""


def _is_zero(expr: Expr) -> bool:
    if expr.is_number:
        return expr.fraction == 0
    try:
        return NormalForms().form(expr).is_zero
    except (NoForm, TooBig, RecursionError):
        return False
