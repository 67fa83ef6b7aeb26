"""Whether an answer is computed: a number that is written down, instead of arithmetic that is left to do."""

from verl_lite.verifiers.math.answers.answer import Answer, read_answer
from verl_lite.verifiers.math.answers.quantities import read_quantity
from verl_lite.verifiers.math.answers.readings import read_simpler
from verl_lite.verifiers.math.expressions import Expr, is_value, walk

_WRAPPERS = frozenset(("neg", "percent", "deg", "pm"))  # -5, 50%, 90 degrees, plus or minus 3


def left_undone(reference: Answer, response: Answer) -> str:
    r"""Why an answer is not computed where the reference is; "" if it is, or if the reference is no number.

    Numbers may be in collections, with units and in x = 5. A fraction that is not whole is a number, and so
    is a multiple of a power of ten; 12/4 is a quotient to compute, 70 + 59 = 129 states its result.

    >>> left_undone(read_answer("129"), read_answer("70 + 59"))
    'not computed: 70 + 59'
    >>> left_undone(read_answer("0.5"), read_answer(r"\frac{1}{2}"))
    ''
    """
    wanted, given = _tree(reference), _tree(response)
    if wanted is None or given is None or not _is_written(wanted):
        return ""
    if not any(part.is_number for part in walk(wanted)) or _is_written(given) or _states_result(given):
        return ""
    return f"not computed: {response.text[:200]}"


def _tree(answer: Answer) -> Expr | None:
    """What the answer says, without its unit and without the words around it."""
    quantity = answer.read(read_quantity)
    if quantity is not None:
        return quantity.value
    if answer.expr is not None:
        return answer.expr
    simpler = answer.read(read_simpler)
    return None if simpler is None else _tree(read_answer(simpler.core))


def _is_written(expr: Expr) -> bool:
    if not expr.args:
        return True  # a number, a name, a constant, an empty set
    if expr.head == "div":
        return _is_fraction(expr)
    if expr.head in ("mul", "pow"):
        return _is_scientific(expr)
    is_plain = not is_value(expr) or expr.head == "base" or expr.head in _WRAPPERS
    return is_plain and all(map(_is_written, expr.args))


def _is_fraction(expr: Expr) -> bool:
    """Two whole numbers whose quotient is not whole."""
    above, below = (part.args[0] if part.head == "neg" else part for part in expr.args)
    if not (above.is_number and below.is_number) or below.fraction == 0:
        return False
    is_ratio = above.fraction.denominator == below.fraction.denominator == 1
    return is_ratio and (above.fraction / below.fraction).denominator != 1


def _is_scientific(expr: Expr) -> bool:
    """A power of ten, or a number times one."""
    factor, power = expr.args if expr.head == "mul" else (None, expr)
    if power.head != "pow" or not (factor is None or factor.is_number):
        return False
    base, exponent = power.args
    return base.is_number and base.fraction == 10 and exponent.is_number


def _states_result(expr: Expr) -> bool:
    """70 + 59 = 129, whichever side has the result."""
    relations = expr.args if expr.head == "chain" else (expr,)
    equalities = [relation for relation in relations if relation.head == "rel" and relation.name == "="]
    return any(_is_written(side) for equality in equalities for side in equality.args if not side.name)
