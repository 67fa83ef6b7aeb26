"""Reference against response: the reference decides the type, each type has one comparison.

Tiers within a type: the same string, exact numbers, exact normal forms, sympy (see judge.py).
Between types nothing is equal, except where a function here says so.
"""

from __future__ import annotations

from verl_lite.verifiers.math.algebra import numeric
from verl_lite.verifiers.math.answers.answer import Answer, read_answer
from verl_lite.verifiers.math.answers.collections import (
    Same,
    alternatives,
    as_matrix,
    as_vector,
    members,
    same_in_order,
    same_members,
    unit_vector_entries,
)
from verl_lite.verifiers.math.answers.equations import (
    assignment,
    proportion,
    same_congruence,
    same_equation,
    same_function,
    same_ratio,
    systems,
    unassigned,
)
from verl_lite.verifiers.math.answers.quantities import bare_value, compare_quantities, quantity_of
from verl_lite.verifiers.math.answers.real_sets import FLIPPED, NoRegion, read_region, same_region
from verl_lite.verifiers.math.answers.values import is_value, same_value
from verl_lite.verifiers.math.answers.words import same_text
from verl_lite.verifiers.math.comparer import Judge
from verl_lite.verifiers.math.decision import Decision, decided, unread
from verl_lite.verifiers.math.expressions import Expr, Unreadable, node, symbols
from verl_lite.verifiers.verdict import Outcome

__all__ = ["Decision", "compare", "share_of_parts"]


def compare(judge: Judge, reference: Answer, response: Answer) -> Decision:
    """The decision for a readable reference. Raises Undecided where a worker ran out of time."""
    if reference.key == response.key:
        return Decision(Outcome.CORRECT, "string")
    if not response.text:
        return Decision(Outcome.UNPARSED, "", "the answer is empty")
    if reference.moment is not None and reference.moment.is_explicit:
        return _moments(reference, response)
    if reference.word_class:
        return _worded(judge, reference, response)
    if reference.choice is not None and _is_choice(reference):
        return _choices(judge, reference, response)
    tree = reference.tree
    if reference.quantity is not None and not (isinstance(tree, Expr) and not reference.quantity.is_certain):
        found = compare_quantities(judge, reference, response)
        if found is not None:
            return found
    if isinstance(tree, Unreadable):
        return _texts(reference, response)
    if response.word_class and response.expr is None:
        return decided(False, "", f"expected a {_kind(tree)}, got {response.word_class!r}")
    return _expressions(judge, reference, tree, response)


# words, choices, times


def _moments(reference: Answer, response: Answer) -> Decision:
    if response.moment is None or reference.moment is None:
        return decided(False, "", "the answer is no time or date")
    return decided(reference.moment.same(response.moment), reference.moment.kind, "another time or date")


def _worded(judge: Judge, reference: Answer, response: Answer) -> Decision:
    ours, theirs = reference.word_class, response.word_class
    if not theirs and response.expr is not None:
        value = unassigned(response.expr)
        theirs = _class_of_tree(value)
    if not theirs and ours in ("yes", "no"):
        said = {word for word in response.words.replace(".", " ").split() if word in ("yes", "no")}
        theirs = response.words.split(" ", 1)[0].strip(".") if len(said) == 1 else ""
    if ours == theirs:
        matched = "boolean" if ours in ("yes", "no") else "infinity" if "infinity" in ours else "words"
        return Decision(Outcome.CORRECT, matched)
    both_prose = reference.is_prose and response.is_prose
    return decided(both_prose and same_text(reference.words, response.words), "text", f"expected {ours!r}")


def _class_of_tree(tree: Expr) -> str:
    if tree.head == "named" and tree.value == "empty":
        return "nothing"
    if tree.head == "const" and tree.value == "inf":
        return "infinity"
    if tree.head == "neg" and tree.args[0].value == "inf":
        return "minus infinity"
    return ""


def _is_choice(reference: Answer) -> bool:
    """A letter counts as a choice where it is upper-case, alone or in front of a text."""
    choice = reference.choice
    assert choice is not None
    if len(choice.letters) == 1 and choice.text:
        return not reference.text[0].isalpha() or reference.text[1:2] in (")", ".", ":")
    return True


def _choices(judge: Judge, reference: Answer, response: Answer) -> Decision:
    ours, theirs = reference.choice, response.choice
    assert ours is not None
    if theirs is None and response.expr is not None and (named := assignment(response.expr)) is not None:
        theirs = read_answer(named[1].name).choice
    if theirs is not None and theirs.letters == ours.letters:
        if not (ours.text and theirs.text) or ours.text == theirs.text:
            return Decision(Outcome.CORRECT, "choice")
        inner = compare(judge, read_answer(ours.text), read_answer(theirs.text))
        return decided(inner.outcome is Outcome.CORRECT, "choice", "the letter is right, its text is not")
    if ours.text and (theirs is None or not theirs.text):
        inner = compare(judge, read_answer(ours.text), response)
        if inner.outcome is Outcome.CORRECT:
            return Decision(Outcome.CORRECT, inner.matched_by)
    if theirs is None and len(ours.letters) == 1 and not ours.text and response.expr is not None:
        return decided(False, "", "the answer is no choice")
    return decided(False, "", "another choice" if theirs else "the answer is no choice")


def _texts(reference: Answer, response: Answer) -> Decision:
    if same_text(reference.words, response.words):
        return Decision(Outcome.CORRECT, "text")
    if reference.moment is not None and response.moment is not None:
        return _moments(reference, response)
    return decided(False, "", "another text")


# expressions, groups, regions, relations


def _kind(tree: Expr) -> str:
    if tree.is_number:
        return "number"
    return {"tuple": "tuple", "set": "set", "list": "list", "interval": "interval", "matrix": "matrix"}.get(
        tree.head, "relation" if tree.head in ("rel", "chain") else "expression"
    )


def _expressions(judge: Judge, reference: Answer, tree: Expr, response: Answer) -> Decision:
    if tree.head == "base" and response.key.upper().lstrip("0") == tree.args[0].name.lstrip("0"):
        return Decision(Outcome.CORRECT, "base")
    theirs = _tree_of(judge, tree, response)
    if theirs is None:
        if (
            reference.quantity is not None
            and (found := compare_quantities(judge, reference, response)) is not None
        ):
            return found
        if (
            reference.moment is not None
            and response.moment is not None
            and reference.moment.same(response.moment)
        ):
            return Decision(Outcome.CORRECT, "time")
        if reference.is_prose and same_text(reference.words, response.words):
            return Decision(Outcome.CORRECT, "text")
        return unread(response)
    for name, comparison in _COMPARISONS:
        is_same = comparison(judge, tree, theirs)
        if is_same is not None:
            matched = judge.tier if name == "value" else name
            return decided(is_same, matched, "; ".join(judge.notes) or f"not the same {_kind(tree)}")
    return decided(False, "", f"expected a {_kind(tree)}, got a {_kind(theirs)}")


def _tree_of(judge: Judge, tree: Expr, response: Answer) -> Expr | None:
    """The response's tree; with its unit taken off where it has one and the reference none."""
    quantity = response.quantity
    if quantity is not None and (quantity.is_certain or response.expr is None):
        return bare_value(tree, quantity)
    if response.expr is None and (moved := quantity_of(response)) is not None:
        return bare_value(tree, moved)
    return response.expr


def _value(judge: Judge, tree: Expr, theirs: Expr) -> bool | None:
    if not is_value(tree) or (tree.head in ("mul", "div") and as_matrix(tree) is not None):
        return None
    if theirs.head in ("tuple", "matrix") and (entries := unit_vector_entries(tree)) is not None:
        return same_in_order(entries, as_vector(theirs) or (), _same(judge))
    if (both := _approximated(theirs)) is not None:
        return _value(judge, tree, both[0]) or same_value(judge, tree, both[1])
    if theirs.head == "chain" and assignment(theirs) is not None:
        parts = [link.args[1] for link in theirs.args]
        if not all(is_value(part) and judge.same(parts[-1], part) for part in parts[:-1]):
            return False
    found = unassigned(theirs)
    if found.head in ("set", "row") and len(found.args) == 1:
        found = found.args[0]
    if found.head == "ratio":
        return same_ratio(judge, tree, found)
    if found.head == "list" and found.value == "and" and len(found.args) == 2:  # 2 and 2/3
        whole, part = found.args
        if whole.is_number and whole.fraction.denominator == 1 and part.head == "div":
            found = node("add", whole, part)
    if theirs.head == "rel" and found is theirs and theirs.value in ("=", "~"):
        left, right = theirs.args
        if symbols(left) or symbols(right) or not (is_value(left) and is_value(right)):
            return False
        return same_value(judge, tree, right) and (theirs.value == "~" or judge.same(left, right))
    if theirs.head == "chain" and found is theirs:
        return _chained_value(judge, tree, theirs)
    if theirs.head == "lambda" and not symbols(tree):
        return False
    return is_value(found) and same_value(judge, tree, found)


def _approximated(tree: Expr) -> tuple[Expr, Expr] | None:
    """(exact, decimal) of "9/7 = ... ~ 1.286", where the decimal is an approximation indeed."""
    last = tree.args[-1] if tree.head == "chain" else tree
    if last.head != "rel" or last.value != "~" or not all(is_value(side) for side in last.args):
        return None
    values = [numeric.approximate(side) for side in last.args]
    if values[0] is None or values[1] is None or abs(values[0] - values[1]) > 0.01 * abs(values[1]):
        return None
    links = tree.args[:-1] if tree.head == "chain" else ()
    exact = last.args[0] if not links else links[0] if len(links) == 1 else Expr("chain", links)
    return exact, last.args[1]


def _chained_value(judge: Judge, tree: Expr, chain: Expr) -> bool:
    """2 + 3 = 4 + 1 = 5: every link must hold, and the last is the answer."""
    if any(link.value not in ("=", "~") for link in chain.args):
        return False
    parts = [chain.args[0].args[0], *(link.args[1] for link in chain.args)]
    if not all(is_value(part) for part in parts):
        return False
    agree = all(link.value == "~" or judge.same(*link.args) for link in chain.args)
    return agree and same_value(judge, tree, parts[-1])


def _vector(judge: Judge, tree: Expr, theirs: Expr) -> bool | None:
    if tree.head == "tuple" and _is_region_like(theirs):
        return None
    if tree.head not in ("tuple", "row", "matrix", "interval", "mul", "div"):
        return None
    ours = as_vector(tree)
    matrix = as_matrix(tree)
    if ours is None and matrix is None:
        return None
    named = systems(theirs)
    if named is not None and ours is not None:
        return same_in_order(ours, [named[name] for name in sorted(named)], _same(judge))
    theirs = unassigned(theirs)
    other_matrix = as_matrix(theirs)
    if matrix is not None and other_matrix is not None:
        shapes = [(len(rows), len(rows[0])) for rows in (matrix, other_matrix)]
        flat = [[entry for row in rows for entry in row] for rows in (matrix, other_matrix)]
        return shapes[0] == shapes[1] and same_in_order(flat[0], flat[1], _same(judge))
    others = theirs.args if theirs.head == "list" and theirs.value != "or" else as_vector(theirs)
    others = unit_vector_entries(theirs) if others is None else others
    return ours is not None and others is not None and same_in_order(ours, others, _same(judge))


def _same(judge: Judge) -> Same:
    """Members are values, or groups themselves."""

    def same(ours: Expr, theirs: Expr) -> bool:
        if is_value(ours):
            found = unassigned(theirs)
            return is_value(found) and same_value(judge, ours, found)
        return any(comparison(judge, ours, theirs) is True for _, comparison in _COMPARISONS)

    return same


def _is_region_like(tree: Expr) -> bool:
    if tree.head == "rel":
        return tree.value != "=" and tree.value != "~"
    return (
        tree.head in ("named", "chain", "interval", "union", "intersect", "minus", "and", "or")
        and systems(tree) is None
    )


def share_of_parts(judge: Judge, reference: Answer, response: Answer) -> float:
    """The share of a list, set or tuple that is right: matches over the larger number of parts."""
    if reference.expr is None or response.expr is None:
        return 0.0
    same, given = _same(judge), unassigned(response.expr)
    vector = as_vector(reference.expr)
    if vector is not None:
        others = as_vector(given) or (given.args if given.head == "list" else ())
        hits = sum(same(a, b) for a, b in zip(vector, others, strict=False))
        return hits / max(len(vector), len(others))
    ours = members(reference.expr)
    theirs = members(response.expr) or ((given,) if is_value(given) else ())
    if not ours or len(theirs) > 100 or len(ours) > 100:
        return 0.0
    hits = sum(any(same(item, other) for other in theirs) for item in ours)
    return hits / max(len(ours), len(theirs))


def _region(judge: Judge, tree: Expr, theirs: Expr) -> bool | None:
    ours_like = _is_region_like(tree) or (tree.head == "named")
    if not ours_like and not (tree.head == "tuple" and _is_region_like(theirs)):
        return None
    try:
        return same_region(judge, read_region(judge, tree), read_region(judge, theirs))
    except NoRegion as reason:
        judge.note(str(reason))
        return _same_relation(judge, tree, theirs)


def _same_relation(judge: Judge, tree: Expr, theirs: Expr) -> bool:
    """Relations that are no region: the same relation between equal sides, either way round."""
    if tree == theirs:
        return True
    if tree.head != "rel" or theirs.head != "rel":
        pairs = zip(tree.args, theirs.args, strict=False)
        same_shape = (
            tree.head == theirs.head and tree.value == theirs.value and len(tree.args) == len(theirs.args)
        )
        return same_shape and all(_same(judge)(a, b) for a, b in pairs)
    if not all(is_value(side) for side in (*tree.args, *theirs.args)):
        return False
    ours, other = (node("add", side.args[0], node("neg", side.args[1])) for side in (tree, theirs))
    factor = proportion(ours, other)
    if factor is None:
        return False
    return tree.name == (theirs.name if factor > 0 else FLIPPED.get(theirs.name))


def _members(judge: Judge, tree: Expr, theirs: Expr) -> bool | None:
    """Sets and bare lists: any order; a tuple for a bare list in the same order only."""
    ours = members(tree)
    if ours is None:
        return None
    theirs_unassigned = unassigned(theirs)
    if theirs_unassigned.head == "tuple" and tree.head == "list":
        return same_in_order(ours, theirs_unassigned.args, _same(judge))
    found_members = members(theirs)
    if found_members is None and is_value(theirs_unassigned):
        found_members = (theirs_unassigned,)
    return found_members is not None and same_members(ours, found_members, _same(judge))


def _system(judge: Judge, tree: Expr, theirs: Expr) -> bool | None:
    """x = 1, y = 2: the same names, or the values alone in the same order."""
    named, other_named = systems(tree), systems(theirs)
    if named is None:
        return None
    if other_named is not None:
        same_names = set(named) == set(other_named)
        return same_names and all(_same(judge)(named[name], other_named[name]) for name in named)
    found = (
        theirs.args if theirs.head in ("list", "tuple") and theirs.value != "or" else as_vector(theirs) or ()
    )
    return same_in_order(list(named.values()), found, _same(judge))


def _relation(judge: Judge, tree: Expr, theirs: Expr) -> bool | None:
    """An equation: the same solutions; a value for "x = 5"."""
    if tree.head == "ratio":
        return same_ratio(judge, tree, unassigned(theirs))
    if tree.head == "congruence":
        return same_congruence(judge, tree, theirs)
    if tree.head == "lambda":
        return same_function(judge, tree, theirs)
    named = assignment(tree)
    if named is not None:
        return _named_value(judge, named, tree, theirs)
    if tree.head != "rel" or tree.value != "=" or theirs.head != "rel" or theirs.value != "=":
        return None
    return _equations(judge, tree, theirs)


def _named_value(judge: Judge, named: tuple[str, Expr], tree: Expr, theirs: Expr) -> bool | None:
    name, value = named
    other = assignment(theirs)
    if other is not None:
        if other[0] == name and is_value(value):
            return is_value(other[1]) and same_value(judge, value, other[1])
        if theirs.head == tree.head == "rel" and symbols(tree) == symbols(theirs):
            return _equations(judge, tree, theirs)
        return _same(judge)(value, other[1]) if other[0] == name else False
    if theirs.head == "lambda":
        return is_value(value) and same_function(judge, theirs, value) and symbols(value) <= symbols(theirs)
    if theirs.head == "rel" and theirs.value == "=":
        return _equations(judge, tree, theirs) if tree.head == "rel" else False
    return _same(judge)(value, theirs)


def _equations(judge: Judge, tree: Expr, theirs: Expr) -> bool:
    sides = (*tree.args, *theirs.args)
    return all(is_value(side) for side in sides) and same_equation(judge, tree, theirs)


def _plus_minus(judge: Judge, tree: Expr, theirs: Expr) -> bool | None:
    both = alternatives(tree)
    if len(both) != 2:
        return None
    others = members(theirs)
    return others is not None and same_members([unassigned(one) for one in both], others, _same(judge))


_COMPARISONS = (
    ("value", _value),
    ("plus-minus", _plus_minus),
    ("system", _system),
    ("vector", _vector),
    ("interval", _region),
    ("relation", _relation),
    ("set", _members),
)
