"""One comparison: whether two expressions are equal, and what it took to find out.

The cheapest check comes first: exact forms, then numeric refutation, then sympy's proof. Only an exact
form or a proof makes two expressions equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from verl_lite.verifiers.math.algebra import numeric
from verl_lite.verifiers.math.algebra.normal_form import NormalForms
from verl_lite.verifiers.math.algebra.powers import NoForm
from verl_lite.verifiers.math.algebra.ring import TooBig
from verl_lite.verifiers.math.expressions import EXPRESSION_HEADS, Expr, call, neg, node, num, symbols, walk
from verl_lite.verifiers.math.options import MathOptions
from verl_lite.verifiers.math.pool import Reply
from verl_lite.verifiers.verdict import Outcome

Ask = Callable[..., Reply]
_TIERS = ("number", "algebra", "symbolic")
MAX_STEPS = 200_000  # of one comparison in the calling process; most take under 1,000


class Decision(NamedTuple):
    outcome: Outcome
    matched_by: str = ""
    reason: str = ""
    credit: float = 0.0  # of a wrong answer with some parts right


def decided(is_same: bool, matched_by: str, reason: str) -> Decision:
    return Decision(Outcome.CORRECT, matched_by) if is_same else Decision(Outcome.WRONG, "", reason)


class Undecided(Exception):
    """A worker could not say: `status` is its reply's (timeout, memory or error)."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


class OutOfSteps(Exception):
    """The comparison takes more of the caller's own work than MAX_STEPS."""

    def __init__(self) -> None:
        super().__init__(f"the comparison takes more than {MAX_STEPS} steps")


@dataclass
class Comparer:
    """The state of one comparison, and equality of expressions.

    `ask(question, *trees)` puts a question to a worker process. `compare_texts` and `tree_types` come
    from compare.py and compare the parts of answers. `tier` is the most expensive step that was needed;
    `notes` are for the reader of the verdict. `steps` counts the caller's own work, see `spend`.
    """

    options: MathOptions
    ask: Ask
    compare_texts: Callable[[Comparer, str, str], Decision]
    tree_types: Sequence[TreeType]
    tier: str = "number"
    notes: list[str] = field(default_factory=list)
    steps: int = 0
    same_parts: dict[tuple[Expr, Expr], bool] = field(default_factory=dict)  # nested sets ask again and again

    def spend(self, steps: int) -> None:
        """Count work done here; raises OutOfSteps past the budget of one comparison."""
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise OutOfSteps

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def used(self, tier: str) -> None:
        if _TIERS.index(tier) > _TIERS.index(self.tier):
            self.tier = tier

    def same(self, reference: Expr, response: Expr) -> bool:
        """Whether two expressions are the same function of their symbols (no rounding here)."""
        if reference == response:
            return True
        if reference.is_number and response.is_number:
            return reference.fraction == response.fraction
        self.spend(20)
        if not _is_expression(reference) or not _is_expression(response):
            return False
        if symbols(reference) != symbols(response) and not (symbols(reference) and symbols(response)):
            return self.same_for_base(reference, response, "e")  # 0*x + 5 may still be 5
        logs = [_has_bare_log(reference), _has_bare_log(response)]
        bases = ("e", "10") if any(logs) and not all(logs) else ("e",)
        return any(self.same_for_base(reference, response, base) for base in bases)

    def same_for_base(self, reference: Expr, response: Expr, log_base: str) -> bool:
        """`same`, with `log_base` as what a bare "log" means."""
        if log_base != "e":
            reference, response = _with_base_ten(reference), _with_base_ten(response)
        forms = NormalForms()
        try:
            left, right = forms.form(reference), forms.form(response)
            if left.constant is not None and right.constant is not None:
                return left.constant == right.constant
            self.used("algebra")
            equal = forms.ring.is_equal(left, right)
        except NoForm:
            equal = False
        except (TooBig, RecursionError):
            if numeric.differs(reference, response) is not True:
                self.note("too large to be compared exactly, and not shown equal")
            return False
        finally:
            self.spend(forms.ring.work)
        differs = numeric.differs(reference, response)
        if not equal and differs is False:
            equal = _same_angle_exactly(reference, response)
        if equal:
            return differs is not True  # an identity of positive numbers may fail for others
        if differs:
            return False
        return self.proved(reference, response)

    def proved(self, reference: Expr, response: Expr) -> bool:
        """Ask sympy. What it cannot prove does not count as equal."""
        parts = (*walk(reference), *walk(response))
        if any(part.head == "call" or part.name == "inf" for part in parts) and not _sums_up(parts):
            return False
        self.used("symbolic")
        reply = self.ask("equal", reference, response)
        if reply.status == "ok":
            if reply.answer is None:
                self.note("they agree numerically, but no proof was found")
            return reply.answer is True
        if reply.status == "refused":
            self.note(f"sympy was not asked or gave up ({reply.why})")
            return False
        raise Undecided(reply.status, reply.why)

    def question(self, question: str, *arguments: Expr | str) -> object:
        """The worker's answer to another question; None if it refused. Raises Undecided."""
        self.used("symbolic")
        reply = self.ask(question, *arguments)
        if reply.status in ("ok", "refused"):
            return reply.answer
        raise Undecided(reply.status, reply.why)


TreeType = tuple[str, Callable[[Comparer, Expr, Expr], bool | None]]
"""What `matched_by` says, and a comparison that returns None for a reference of another type."""


_INVERSE_FUNCTIONS = frozenset(("asin", "acos", "atan", "acot"))


def _sums_up(parts: Sequence[Expr]) -> bool:
    """Whether infinity is only the end of a sum, integral or limit, and no unknown function is called."""
    infinite = sum(part.name == "inf" for part in parts)
    ends = [end for part in parts if part.head == "big" for end in part.args[1:]]
    at_ends = sum(part.name == "inf" for end in ends for part in walk(end))
    return infinite == at_ends and not any(part.head == "call" for part in parts)


def _same_angle_exactly(reference: Expr, response: Expr) -> bool:
    """Constants with inverse functions: exp(i(a - b)) = 1 exactly, and a - b is near 0, so a = b."""
    difference = node("add", reference, neg(response))
    if symbols(difference) or not any(part.name in _INVERSE_FUNCTIONS for part in walk(difference)):
        return False
    try:
        apart = numeric.evaluate(difference, {})[0]
        forms = NormalForms()
        angle = forms.form(difference)
        turned = forms.ring.exponential(forms.ring.multiply(angle, forms.form(Expr("const", (), "i"))))
        return abs(apart) < 1 and forms.ring.is_equal(turned, forms.ring.rational(Fraction(1)))
    except (numeric.Undefined, NoForm, TooBig, RecursionError, ZeroDivisionError):
        return False


def _is_expression(expr: Expr) -> bool:
    return all(part.head in EXPRESSION_HEADS for part in walk(expr))


def _has_bare_log(expr: Expr) -> bool:
    return any(part.head == "func" and part.name == "log" and len(part.args) == 1 for part in walk(expr))


def _with_base_ten(expr: Expr) -> Expr:
    args = tuple(_with_base_ten(arg) for arg in expr.args)
    if expr.head == "func" and expr.name == "log" and len(args) == 1:
        return call("log", args[0], num(10))
    return Expr(expr.head, args, expr.value, expr.places) if args else expr
