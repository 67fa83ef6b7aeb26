"""`process`: the arithmetic of every line, decided exactly or left alone."""

from fractions import Fraction

import pytest

from verl_lite.plugins import Rollout, ScoreOutcome, StepScore
from verl_lite.plugins.builtin import ProcessOptions, equations_in, process_reward
from verl_lite.plugins.builtin.arithmetic import NoValue, read_tokens, value_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4", Fraction(14)),
        ("(2 + 3) * 4", Fraction(20)),
        ("7 - 2 - 1", Fraction(4)),
        ("12 / 4 / 3", Fraction(1)),
        ("-2^2", Fraction(-4)),
        ("2 * -3", Fraction(-6)),
        ("2^10", Fraction(1024)),
        ("2^-2", Fraction(1, 4)),
        ("1,234.5 + .5", Fraction(1235)),
        ("20% * 50", Fraction(10)),
        ("0.1 + 0.2", Fraction(3, 10)),
    ],
)
def test_arithmetic(text: str, value: Fraction) -> None:
    assert value_of(read_tokens(text)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2 +",
        "2 3",
        "(2",
        "1 / 0",
        "0^-1",
        "2^0.5",
        "2^1000",
        "9^64^2",
        "(" * 30 + "1" + ")" * 30,
        "9" * 31,
    ],
)
def test_no_arithmetic_and_beyond_the_bounds(text: str) -> None:
    with pytest.raises(NoValue):
        value_of(read_tokens(text))


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("3 + 4 = 7", [True]),
        ("3 + 4 = 8", [False]),
        ("So 3 + 4 = 7 apples.", [True]),
        ("1. 3 + 4 = 7", [True]),
        ("2) 3 + 4 = 7", [True]),
        ("- 3 + 4 = 7", [True]),
        ("- 3 + 4 = 1", [True]),  # the other reading of the dash
        ("- 3 + 4 = 5", [False]),
        ("Step 2: 3 + 4 = 7, then 7 * 2 = 14.", [True, True]),
        ("12 * 2 = 24 = 20 + 4", [True, True]),
        ("3 + 4 = 7 + 2 = 9", [False, True]),  # running equals signs
        (r"$3 \times 4 = 12$", [True]),
        (r"\(3 \cdot 4 = 13\)", [False]),
        ("<<48/2=24>>24", [True]),
        ("(since 3 + 4 = 7)", [True]),
        ("1,200 + 34 = 1,234", [True]),
        ("In 2020, 3 + 4 = 7.", [True]),
        ("$5 + $6 = $11", [True]),
        ("10 / 3 = 3.33", [True]),
        ("10 / 3 = 3.34", [False]),
        ("10 / 3 = 3", [False]),
        ("10 / 3 ≈ 3", [True]),
        (r"10 / 3 \approx 4", [False]),
        ("7 = 3 + 4", [True]),
        ("2^3 = 8", [True]),
        ("1 / 4 = 25%", [True]),
        ("1 / 4 * 100 = 25%", [True]),
        ("100 - 5 = 94%", [False]),
        ("12 / 4 / 3 = 1", [True]),
        ("3 + 4 = 7 and 2 + 2 = 5", [True, False]),
    ],
)
def test_equations_that_are_decided(line: str, holds: list[bool]) -> None:
    assert [equation.holds for equation in equations_in(line)] == holds


@pytest.mark.parametrize(
    "line",
    [
        "x = 5",
        "5 = 5",
        "2x + 4 = 10",
        "x 3 + 4 = 9",
        "3 + 4 = 7x",
        "3 + 4 = 7 + y",
        "3 apples + 4 = 9",
        "apples + 3 = 5",
        "sqrt(16) + 1 = 5",
        "f(3) + 1 = 9",
        r"\frac{1}{2} + 3 = 3.5",
        r"1 + 1 = \sqrt{4}",
        r"2 + 2 = 2 \cdot \sqrt{4}",
        "half of 3 + 4 = 3.5",
        "the square root of 9 + 16 = 5",
        "17 mod 5 + 1 = 3",
        "4 * 3 = 2 mod 5",
        "10 / 3 = 3 remainder 1",
        "10 / 3 = 3 R 1",
        "2 * 500 = 1 thousand",
        "3 + 4 == 8",
        "3 + 4 != 8",
        "3 + 4 <= 8",
        "1 1/2 + 1 = 2.5",
        "1.2.3 + 1 = 2",
        "2(3) + 1 = 7",
        "5! = 120",
        "Week 3 + Week 4 = 48 + 48",
        "4 / 3 = 1 and 1/3",
        "500 / 2/5 = 200",
        "2.50 - 2.24 = 26 cents",
        "at 6:00 + 48 = 6:48",
        "0900 - 0130 = 0730",
        "3 + 4 =",
        "= 3 + 4",
        "",
    ],
)
def test_equations_that_are_left_alone(line: str) -> None:
    assert list(equations_in(line)) == []


def test_steps_and_values() -> None:
    text = "Let us see.\n  3 + 4 = 7\n7 * 2 = 15 and 1 + 1 = 2\nSo 15.\n15 - 1 = 14 "
    score = process_reward(Rollout(completion=text), ProcessOptions(right=0.5))
    assert score.value == 0.0
    assert score.steps == (StepScore(14, 23, 0.5), StepScore(24, 48, -1.0), StepScore(56, 67, 0.5))
    assert text[14:23] == "3 + 4 = 7"
    assert score.reason == "does not hold: 7 * 2 = 15"
    assert process_reward(Rollout(completion=text), ProcessOptions(value="fraction")).value == pytest.approx(
        2 / 3
    )
    assert process_reward(Rollout(completion=text), ProcessOptions(value="all")).value == 0.0
    assert process_reward(Rollout(completion="1 + 1 = 2"), ProcessOptions(value="all")).value == 1.0
    assert (
        process_reward(Rollout(completion="3 / 2 = 1.4"), ProcessOptions(rounding=False)).steps[0].value
        == -1.0
    )


def test_without_an_equation_there_is_nothing_to_say() -> None:
    assert process_reward(Rollout(completion="It is four."), ProcessOptions()).outcome is ScoreOutcome.ABSTAIN


@pytest.mark.parametrize("text", ["1=" * 200_000, "1+" * 200_000 + "=3", "(" * 300_000 + "=1", "9" * 500_000])
def test_long_lines_cost_time_in_proportion(text: str) -> None:
    score = process_reward(
        Rollout(completion=text), ProcessOptions()
    )  # pytest-timeout would end a quadratic scan
    assert score.outcome is ScoreOutcome.ABSTAIN
