"""Quantities against quantities: conversion, implied units, labels, angles."""

from __future__ import annotations

from verl_lite.verifiers.math.answers.answer import Answer, read_answer
from verl_lite.verifiers.math.answers.equations import assignment, unassigned
from verl_lite.verifiers.math.answers.unit_names import ANGLES
from verl_lite.verifiers.math.answers.units import Quantity, convert
from verl_lite.verifiers.math.answers.values import is_value, same_value
from verl_lite.verifiers.math.comparer import Judge, exact_value
from verl_lite.verifiers.math.decision import Decision, decided, unread
from verl_lite.verifiers.math.expressions import Expr, node, num, symbols

__all__ = ["bare_value", "compare_quantities", "quantity_of"]


def compare_quantities(judge: Judge, reference: Answer, response: Answer) -> Decision | None:
    """The reference has a unit, a currency or a label. None: compare it as an expression after all."""
    ours = reference.quantity
    assert ours is not None
    theirs = quantity_of(response)
    if theirs is None:
        if response.expr is None:
            return unread(response)
        if judge.options.units == "require" and ours.unit:
            return decided(False, "", "the answer has no unit")
        return decided(_same_bare(judge, ours, unassigned(response.expr)), "units", "another number")
    if judge.options.units == "strip" or not ours.unit or not theirs.unit:
        if judge.options.units == "require" and ours.unit:
            return decided(False, "", "the answer has another unit")
        if ours.label and theirs.label and not _share_a_word(ours.label, theirs.label):
            return decided(False, "", f"expected {ours.label}, got {theirs.label}")
        return decided(same_value(judge, ours.value, theirs.value), "units", "another number")
    return _converted(judge, ours, theirs)


def _share_a_word(ours: str, theirs: str) -> bool:
    stems = [{word.rstrip("s") for word in label.split()} for label in (ours, theirs)]
    return bool(stems[0] & stems[1])


def quantity_of(answer: Answer) -> Quantity | None:
    """The quantity of a response, also of "x = 5 cm", "30^\\circ" and "5 cm or so"."""
    if answer.quantity is not None:
        return answer.quantity
    if "=" in answer.text:
        left, _, right = answer.text.rpartition("=")
        tail = read_answer(right)
        if tail.quantity is not None and _is_named(left, tail.quantity.value):
            return tail.quantity
    if answer.expr is not None:
        value = unassigned(answer.expr)
        if value.head == "deg":
            return Quantity(value.args[0], (("degree", 1),))
    return None


def _is_named(left: str, value: Expr) -> bool:
    """Whether what stands before "=" is a name, or a calculation of the value, rather than an equation."""
    head = read_answer(left)
    if head.expr is None:
        return head.is_prose
    if is_value(head.expr) and not symbols(head.expr):
        return exact_value(head.expr) is not None and exact_value(head.expr) == exact_value(value)
    return assignment(node("rel", head.expr, num(0), value="=")) is not None


def _same_bare(judge: Judge, ours: Quantity, value: Expr) -> bool:
    """A bare number for a quantity: the unit is implied; radians where the value holds pi."""
    if not is_value(value) and value.head != "pm":
        return False
    if ours.unit == (("degree", 1),):
        return same_value(judge, node("deg", ours.value), value)
    if ours.unit == (("radian", 1),) and value.head == "deg":
        return same_value(judge, ours.value, value)
    return same_value(judge, ours.value, value)


def _converted(judge: Judge, ours: Quantity, theirs: Quantity) -> Decision:
    if ours.unit == theirs.unit:
        return decided(
            same_value(judge, ours.value, theirs.value), "units", "another number of the same unit"
        )
    if len(ours.unit) == len(theirs.unit) == 1 and {ours.unit[0][0], theirs.unit[0][0]} == ANGLES:
        angles = [
            node("deg", one.value) if one.unit[0][0] == "degree" else one.value for one in (ours, theirs)
        ]
        return decided(judge.same(*angles), "units", "another angle")
    value = exact_value(theirs.value)
    if value is None:
        slope = convert(num(1).fraction, theirs.unit, ours.unit)
        if slope is None:
            return decided(False, "", "another unit")
        return decided(
            same_value(judge, ours.value, node("mul", theirs.value, num(slope))), "units", "another number"
        )
    converted = convert(value, theirs.unit, ours.unit)
    if converted is None:
        return decided(False, "", "a unit of another kind")
    places = 3 if theirs.value.places >= 0 else -1
    return decided(
        same_value(judge, ours.value, num(converted, places)), "units", "another number after conversion"
    )


def bare_value(tree: Expr, quantity: Quantity) -> Expr:
    """The number of a quantity; degrees stay degrees, and radians for degrees are converted."""
    if quantity.unit == (("degree", 1),):
        return node("deg", quantity.value)
    if quantity.unit == (("radian", 1),) and tree.head == "deg":
        return node("deg", node("div", node("mul", quantity.value, num(180)), Expr("const", (), "pi")))
    return quantity.value
