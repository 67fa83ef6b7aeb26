"""Random LaTeX-like text against verify_math: what holds for every input, not only for the corpus."""

import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, assume, example, given, settings, strategies as st

from verl_lite.verifiers import MathOptions, Outcome, verify_math
from verl_lite.verifiers.math.answers.answer import read_answer
from verl_lite.verifiers.math.answers.plain_numbers import compare_plain, plain_number
from verl_lite.verifiers.math.compare import compare, new_comparer
from verl_lite.verifiers.math.pool import ask

pytestmark = pytest.mark.usefixtures("warm_workers")
OPTIONS = MathOptions(timeout_s=1.0)
GRACE_S = 0.5
# Derandomised: the same examples in every run, so a red build can be run again.
FUZZ = settings(
    max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

ATOMS = [
    "0", "1", "2", "7", "10", "0.5", "3.14", "1,000", "1e5", "12345678901234567890", "x", "y", "n", "A",
    "\\pi", "π", "e", "i", "\\infty", "∞", "\\emptyset", "\\alpha", "½", "√2", "x²", "yes", "cat",
    "\\text{no solution}", "\\text{ cm}", "\\mathbb{R}", "30^\\circ", "50\\%", "\\$5", "0.\\overline{3}",
]  # fmt: skip
JOINTS = [
    "+", "-", "*", "/", "^", "_", "=", "<", ">", "\\le ", "\\ge ", "\\ne ", "\\cdot ", "\\times ", "\\pm ",
    ",", ";", ":", "!", "|", " ", " or ", " and ", "\\cup ", "\\in ", "\\setminus ", "\\to ", "&", "\\\\",
    ".", "...", "'", "?", "×", "÷", "≤", "∪", "±", "°", "\\ ", "\\,", "\\quad ", "~", "%",
]  # fmt: skip
WRAPPERS = [
    ("(", ")"), ("[", "]"), ("(", "]"), ("{", "}"), ("\\{", "\\}"), ("\\left(", "\\right)"), ("\\sqrt{", "}"),
    ("\\frac{", "}{2}"), ("\\frac{1}{", "}"), ("\\text{", "}"), ("\\mathrm{", "}"), ("|", "|"),
    ("\\ln(", ")"), ("\\sin ", ""), ("\\begin{pmatrix}", "\\end{pmatrix}"), ("\\sqrt[3]{", "}"),
    ("^{", "}"), ("_{", "}"), ("\\langle ", "\\rangle "), ("\\lfloor ", "\\rfloor "), ("f(x)=", ""),
    ("\\binom{5}{", "}"),
]  # fmt: skip
FRAGMENTS = [
    *ATOMS, *JOINTS, "\\boxed{", "\\boxed{5}", "}", "{", "$", "$$", "\\(", "\\)", "\\[", "\\]", "<answer>",
    "</answer>", "####", "the answer is ", "Answer:", "\\frac", "\\sqrt", "\\left", "\\right",
    "\\begin{pmatrix}", "\\end{pmatrix}", "\\", "\x00", "\u200f", "\u202e", "\ud800", "\n",
    "10^{10^{10}}", "!!", "\\undefined",
]  # fmt: skip


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    wrapped = st.builds(lambda pair, text: pair[0] + text + pair[1], st.sampled_from(WRAPPERS), inner)
    joined = st.builds(lambda a, joint, b: a + joint + b, inner, st.sampled_from(JOINTS), inner)
    return wrapped | joined


# Balanced braces, no dollar signs: what may stand inside a box, or be a reference.
balanced = st.recursive(st.sampled_from(ATOMS), _grow, max_leaves=6)
soup = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=25).map("".join)
numbers = st.fractions(min_value=-99, max_value=99, max_denominator=60)
# Numbers in all plain notations, often near one another, where a decimal may be a rounding.
near = st.integers(-30, 30).flatmap(lambda n: st.sampled_from([n, 10 * n, 100 * n, 1000 + n]))
plain_texts = st.one_of(
    near.map(str),
    near.map(lambda n: f"{n:,}"),
    st.builds(lambda n, places: f"{n / 7:.{places}f}", near, st.integers(1, 8)),
    st.builds(lambda n, below: f"{n}/{below}", near, st.integers(1, 9)),
    st.builds(lambda n, below: f"\\frac{{{abs(n)}}}{{{below}}}", near, st.integers(1, 9)),
)


def outcome_of(response: str, reference: str) -> Outcome:
    return verify_math(response, reference, options=OPTIONS).outcome


def decided(response: str, reference: str) -> Outcome:
    """The outcome; an example that runs out of time says nothing about equality and is skipped."""
    outcome = outcome_of(response, reference)
    assume(outcome is not Outcome.TIMEOUT)
    return outcome


def in_box(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


@st.composite
def exact_pairs(draw: st.DrawFn) -> tuple[str, str]:
    """Two exact answers of the kinds whose comparison promises symmetry, often equal."""
    value = draw(numbers)
    other = draw(st.sampled_from([value, -value, value + 1, value * 2]) | numbers)
    forms = [_as_fraction, _as_quotient, _as_sum, _as_root, _as_polynomial, _as_pair, _as_set]
    return draw(st.sampled_from(forms))(value), draw(st.sampled_from(forms))(other)


def _as_fraction(value: Fraction) -> str:
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _as_quotient(value: Fraction) -> str:
    return f"{3 * value.numerator}/{3 * value.denominator}"


def _as_sum(value: Fraction) -> str:
    return f"1 + {_as_fraction(value - 1)}"


def _as_root(value: Fraction) -> str:
    return f"{_as_fraction(value)}\\sqrt{{2}}"


def _as_polynomial(value: Fraction) -> str:
    return f"(x+1)^2 + {_as_fraction(value)}x"


def _as_pair(value: Fraction) -> str:
    return f"({value.numerator}, {_as_fraction(value)})"


def _as_set(value: Fraction) -> str:
    return f"\\{{{_as_fraction(value)}, {_as_fraction(value + 1)}\\}}"


@FUZZ
@given(response=soup, reference=soup)
def test_any_text_gives_a_verdict_before_the_deadline(response: str, reference: str) -> None:
    for _ in range(3):  # a busy machine may have had the core
        start_s = time.monotonic()
        verdict = verify_math(response, reference, options=OPTIONS)
        wall_s = time.monotonic() - start_s
        if wall_s <= OPTIONS.timeout_s + GRACE_S:
            break
    assert verdict.outcome is not Outcome.ERROR, verdict.reason
    assert verdict.credit == (1.0 if verdict.is_correct else 0.0)
    assert verdict.reason or verdict.is_correct
    assert wall_s <= OPTIONS.timeout_s + GRACE_S


@FUZZ
@given(answer=balanced, reference=balanced)
def test_blanks_and_dollars_around_an_answer_change_nothing(answer: str, reference: str) -> None:
    plain = decided(in_box(answer), reference)
    assert decided(f"\n  {in_box(answer)}\t ", reference) == plain
    assert decided(in_box(f" {answer} "), reference) == plain
    assert decided(f"${in_box(answer)}$", reference) == plain
    assert decided(in_box(f"${answer}$"), reference) == plain


@FUZZ
@given(answer=balanced, reference=balanced)
def test_blanks_and_dollars_around_a_reference_change_nothing(answer: str, reference: str) -> None:
    plain = decided(in_box(answer), reference)
    assert decided(in_box(answer), f"  {reference}\n") == plain
    assert decided(in_box(answer), f"${reference}$") == plain


@FUZZ
@given(reference=balanced)
def test_a_reference_meets_itself_or_is_a_bad_one(reference: str) -> None:
    assert outcome_of(in_box(reference), reference) in (Outcome.CORRECT, Outcome.BAD_REFERENCE)


@FUZZ
@given(pair=exact_pairs())
def test_exact_answers_compare_the_same_both_ways(pair: tuple[str, str]) -> None:
    left, right = pair
    assert decided(in_box(left), right) == decided(in_box(right), left)


@FUZZ
@given(value=numbers, other=numbers)
def test_rational_answers_are_equal_exactly_when_the_numbers_are(value: Fraction, other: Fraction) -> None:
    verdict = verify_math(in_box(_as_quotient(value)), _as_fraction(other), options=OPTIONS)
    assert verdict.is_correct == (value == other)
    assert verify_math(in_box(_as_sum(value)), _as_fraction(value), options=OPTIONS).is_correct


@FUZZ
@given(answer=plain_texts, reference=plain_texts, rel_tol=st.sampled_from([0.0, 1e-6, 0.01, 0.3, 0.9]))
@example(answer="2.4", reference="2.5", rel_tol=0.05)  # within the tolerance
@example(answer="12346", reference="12345.7", rel_tol=1e-6)
def test_the_short_cut_for_plain_numbers_decides_like_the_whole_comparison(
    answer: str, reference: str, rel_tol: float
) -> None:
    wanted = plain_number(reference)
    assert wanted is not None
    quick = compare_plain(wanted, answer, rel_tol)
    if quick is None:
        assert "." in answer + reference
        return
    comparer = new_comparer(MathOptions(rel_tol=rel_tol), ask)
    assert quick.outcome is compare(comparer, read_answer(reference), read_answer(answer)).outcome
