"""Numbers and other single expressions: an answer that is one value."""

from verl_lite.verifiers.math.algebra import numeric
from verl_lite.verifiers.math.answers.assignments import assignment, same_in_order, stated
from verl_lite.verifiers.math.answers.ratios import same_ratio
from verl_lite.verifiers.math.answers.same_value import same_value
from verl_lite.verifiers.math.answers.vectors import as_matrix, as_vector, unit_vector_entries
from verl_lite.verifiers.math.comparer import Comparer
from verl_lite.verifiers.math.expressions import Expr, is_value, node, parts_of, substitute, sym, symbols

_IMAGINARY = Expr("const", (), "i")


def compare(comparer: Comparer, reference: Expr, response: Expr) -> bool | None:
    """The same value, which may be named, calculated, approximated, in braces, or a ratio."""
    if (known := _read_approximation(reference)) is not None and is_value(known[0]):
        return any(compare(comparer, value, response) is True for value in known)
    if not is_value(reference) or as_matrix(reference) is not None:
        return None
    if parts_of(reference, "pm"):
        return None  # two values, wherever the sign stands
    if response.head in ("tuple", "matrix") and (entries := unit_vector_entries(reference)) is not None:
        return same_in_order(comparer, entries, as_vector(response) or ())
    if (both := _read_approximation(response)) is not None:
        return compare(comparer, reference, both[0]) or same_value(comparer, reference, both[1])
    if response.head == "chain":
        return _compare_chain(comparer, reference, response)
    given = stated(response)
    if response.head == "rel" and given is response and response.value in ("=", "~"):
        left, right = response.args
        if symbols(left) or symbols(right) or not (is_value(left) and is_value(right)):
            return False
        return same_value(comparer, reference, right) and (
            response.value == "~" or comparer.same(left, right)
        )
    given = _read_single(given)
    if given.head == "ratio":
        return same_ratio(comparer, reference, given)
    if response.head == "lambda":
        given = _renamed(response, reference)
    if given.head != "sym" and symbols(given) == {"j"} and _IMAGINARY in parts_of(reference, "const"):
        given = substitute(given, {"j": _IMAGINARY})  # 3 - 4j
    return is_value(given) and same_value(comparer, reference, given)


def _renamed(function: Expr, reference: Expr) -> Expr:
    """The body of a function of one variable, in the one letter of the reference: p(t) = t^2 for x^2."""
    parameters, names = function.args[:-1], symbols(reference)
    if len(parameters) != 1 or not names:
        return function
    body, parameter = function.args[-1], parameters[0].name
    if len(names) > 1 or symbols(body) != {parameter}:
        return body
    return substitute(body, {parameter: sym(next(iter(names)))})


def _read_single(tree: Expr) -> Expr:
    """The one member of a set or row; "2 and 2/3" as a sum."""
    if tree.head in ("set", "row") and len(tree.args) == 1:
        return tree.args[0]
    if tree.head == "list" and tree.value == "and" and len(tree.args) == 2:
        whole, part = tree.args
        if whole.is_number and whole.fraction.denominator == 1 and part.head == "div":
            return node("add", whole, part)
    return tree


def _read_approximation(tree: Expr) -> tuple[Expr, Expr] | None:
    """(exact, decimal) of "9/7 = ... ~ 1.286", if the decimal does approximate the value."""
    last = tree.args[-1] if tree.head == "chain" else tree
    if last.head != "rel" or last.value != "~" or not all(is_value(side) for side in last.args):
        return None
    values = [numeric.approximate(side) for side in last.args]
    if values[0] is None or values[1] is None or abs(values[0] - values[1]) > 0.01 * abs(values[1]):
        return None
    links = tree.args[:-1] if tree.head == "chain" else ()
    exact = last.args[0] if not links else links[0] if len(links) == 1 else Expr("chain", links)
    return exact, last.args[1]


def _compare_chain(comparer: Comparer, reference: Expr, chain: Expr) -> bool:
    """2 + 3 = 4 + 1 = 5 or x = 4 + 1 = 5: the parts must be equal, and the last is the answer."""
    named = assignment(chain)
    if named is not None:
        parts = [link.args[1] for link in chain.args]
        known = [part for part in parts[:-1] if symbols(part) <= symbols(parts[-1])]  # not y of x = 2y = 6
        agree = all(is_value(part) and comparer.same(parts[-1], part) for part in known)
        return is_value(named[1]) and agree and same_value(comparer, reference, named[1])
    if any(link.value not in ("=", "~") for link in chain.args):
        return False
    parts = [chain.args[0].args[0], *(link.args[1] for link in chain.args)]
    if not all(is_value(part) for part in parts):
        return False
    agree = all(link.value == "~" or comparer.same(*link.args) for link in chain.args)
    return agree and same_value(comparer, reference, parts[-1])
