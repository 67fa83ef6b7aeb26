"""The exact parts against hand-made answers: tokens, trees, normal forms, refutation, quantities."""

import gc
import random
import weakref
from fractions import Fraction

import pytest

from verl_lite.verifiers import Outcome, verify_math
from verl_lite.verifiers.math.algebra import numeric
from verl_lite.verifiers.math.algebra.normal_form import NormalForms, exact_value
from verl_lite.verifiers.math.algebra.powers import NoForm
from verl_lite.verifiers.math.algebra.ring import TooBig
from verl_lite.verifiers.math.answers.answer import Answer
from verl_lite.verifiers.math.answers.grammar import parse_answer
from verl_lite.verifiers.math.answers.quantities import read_quantity
from verl_lite.verifiers.math.answers.units import convert
from verl_lite.verifiers.math.expressions import Expr, Unreadable
from verl_lite.verifiers.math.reading.extraction import extract
from verl_lite.verifiers.math.reading.normalise import clean
from verl_lite.verifiers.math.reading.statements import _PHRASE, phrase_ends
from verl_lite.verifiers.math.reading.words import number_in_words


def tree(text: str) -> Expr:
    parsed = parse_answer(clean(text))
    assert isinstance(parsed, Expr), parsed
    return parsed


def same_form(left: str, right: str) -> bool:
    forms = NormalForms()
    return forms.ring.is_equal(forms.form(tree(left)), forms.form(tree(right)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2\\frac{2}{3}", Fraction(8, 3)), ("2 2/3", Fraction(8, 3)), ("-2\\frac13", Fraction(-7, 3)),
        ("0.\\overline{142857}", Fraction(1, 7)), ("0.1\\overline{6}", Fraction(1, 6)), ("0.333...", Fraction(1, 3)),
        ("0.(3)", Fraction(1, 3)), ("1,234,567", 1234567), ("1{,}000", 1000), ("10 000", 10000), ("3e8", 3 * 10**8),
        ("½", Fraction(1, 2)), ("2½", Fraction(5, 2)), ("1e-5", Fraction(1, 100000)),
    ],
)  # fmt: skip
def test_numbers_are_read_exactly(text: str, value: Fraction) -> None:
    assert exact_value(tree(text)) == value


@pytest.mark.parametrize(
    "text",
    [
        "3+",
        "x^",
        "\\frac{1}",
        "(1,2",
        "2 3 x",
        "the cat",
        "--5",
        "1e999999999",
        "7" * 5000,
        "(" * 100 + ")" * 100,
    ],
)
def test_what_is_no_expression_is_unreadable_with_a_reason(text: str) -> None:
    parsed = parse_answer(clean(text))
    assert isinstance(parsed, Unreadable)
    assert str(parsed)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("(x+1)^2", "x^2+2x+1"), ("1/(1+\\sqrt2)", "\\sqrt2-1"), ("\\sin 2x", "2\\sin x\\cos x"),
        ("\\frac{1}{\\sqrt{x+1}}", "\\frac{\\sqrt{x+1}}{x+1}"), ("\\sqrt{8}", "2\\sqrt{2}"), ("\\sqrt{x^2}", "|x|"),
        ("\\log_2 8", "3"), ("4^x", "2^{2x}"), ("\\cos\\frac{\\pi}{12}", "\\frac{\\sqrt6+\\sqrt2}{4}"),
        ("(n+1)!", "(n+1)n!"), ("2^{100000}", "4^{50000}"), ("\\sqrt{3+2\\sqrt2}", "1+\\sqrt2"),
        ("\\frac{x^2-1}{x-1}", "x+1"), ("\\cos 3x", "4\\cos^3 x-3\\cos x"), ("e^{i\\pi}", "-1"),
        ("\\sin(\\arctan x)", "\\frac{x}{\\sqrt{1+x^2}}"), ("\\sqrt[3]{16}", "2\\sqrt[3]{2}"),
    ],
)  # fmt: skip
def test_equal_expressions_share_a_normal_form(left: str, right: str) -> None:
    assert same_form(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\sqrt{x^2}", "x"), ("(x^6)^{1/4}", "x^{3/2}"), ("x^2", "x^3"), ("1/2^{99}", "1/2^{98}"), ("\\sin x", "\\cos x"),
        ("\\ln 2", "\\ln 3"), ("|x|", "x"), ("e^{i\\pi}", "1"), ("\\frac{1}{2004!}", "\\frac{1}{2006!}"),
    ],
)  # fmt: skip
def test_different_expressions_do_not(left: str, right: str) -> None:
    assert not same_form(left, right)


def test_forms_stop_at_their_caps() -> None:
    with pytest.raises(TooBig):
        NormalForms().form(tree("(x+y+z+w)^{200}"))
    with pytest.raises(NoForm):
        NormalForms().form(tree("1/(2-2)"))


def test_floats_refute_and_never_prove() -> None:
    assert numeric.differs(tree("x"), tree("x+10^{-9}")) is True
    assert numeric.differs(tree("\\sqrt{3+2\\sqrt2}"), tree("1+\\sqrt2")) is False
    # beyond what floats resolve nothing is claimed: the bound covers the difference
    assert numeric.differs(tree("10^{20}+\\sqrt2"), tree("10^{20}+\\sqrt3")) is False
    assert numeric.differs(tree("\\ln(-2)"), tree("1")) is None


def test_quantities_convert_exactly() -> None:
    five = read_quantity(Answer("500 cm"))
    assert five is not None
    assert convert(Fraction(500), five.unit, (("meter", 1),)) == 5
    assert convert(Fraction(100), (("degree_Celsius", 1),), (("degree_Fahrenheit", 1),)) == 212
    assert convert(Fraction(5), (("meter", 1),), (("second", 1),)) is None
    assert convert(Fraction(50), (("USD_cent", 1),), (("USD", 1),)) == Fraction(1, 2)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("twenty-one", 21),
        ("one hundred and five", 105),
        ("two thirds", Fraction(2, 3)),
        ("minus three", -3),
        ("cat", None),
    ],
)
def test_numbers_in_words(words: str, value: Fraction | None) -> None:
    assert number_in_words(words) == value


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("\\boxed{1} and then \\boxed{2}", "2"), ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"), ("\\boxed{1} then \\boxed{2", None),
        ("#### 18", "18"), ("The answer is 5. I checked.", "5"), ("<answer>7</answer>", "7"), ("\\boxed{}", None), ("", None),
        ("It could be 3, 5 or 7.", None), ("x\nA: 26", "26"), ("So there are 18 apples left in the box.", "18 apples"),
    ],
)  # fmt: skip
def test_extraction(response: str, answer: str | None) -> None:
    assert extract(response).answer == answer


PIECES = (
    "answer", "Answer:", "ANSWER IS", "the result", "are", ":", "**", "A:", "\nA:", "\n ** A ** :", "\nAns.", "\n", "=",
    "solution", "答案", "是", "选", "B", "5", "$x$", " ", "réponse", "respuesta es", "İ", "banana: ",
)  # fmt: skip


def test_answer_phrases_are_found_where_a_search_of_the_whole_text_finds_them() -> None:
    chance = random.Random(7)
    found = 0
    for _ in range(3000):
        text = chance.choice(("", " ")).join(chance.choices(PIECES, k=chance.randint(1, 12)))
        ends = phrase_ends(text)
        assert ends == [match.end() for match in _PHRASE.finditer(text)][::-1], text
        found += len(ends)
    assert found > 3000


def test_strict_mode_takes_no_bare_expression() -> None:
    assert extract("5", mode="strict").answer is None
    assert extract("\\boxed{5}", mode="strict").answer == "5"


def test_an_answer_that_cannot_be_read_keeps_nothing_of_its_caller_alive() -> None:
    """Answers are cached; a cached exception with its traceback kept every rollout of a run in memory."""

    class Batch:
        pass

    def score() -> weakref.ref[Batch]:
        batch = Batch()
        verdict = verify_math(r"\boxed{1 2 3 \sum <}", "5")
        assert verdict.outcome is Outcome.UNPARSED
        return weakref.ref(batch)

    left = score()
    gc.collect()
    assert left() is None
