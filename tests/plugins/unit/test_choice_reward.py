"""`choice`: the option that was chosen, and what only looks like a choice."""

from typing import Any

import pytest

from verl_lite.plugins import Rollout, ScoreOutcome
from verl_lite.plugins.builtin import ChoiceOptions, choice_reward

CITIES = ["Paris", "Rome", "A city in Spain", "None of these"]


def score(completion: str, reference: str | None, choices: Any = None, **options: Any) -> Any:
    columns = {} if choices is None else {"choices": choices}
    rollout = Rollout(completion=completion, reference=reference, columns=columns)
    return choice_reward(rollout, ChoiceOptions.model_validate(options))


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("B", 1.0),
        ("(B)", 1.0),
        ("B.", 1.0),
        (r"\boxed{B}", 1.0),
        (r"so \boxed{\text{(B)}}", 1.0),
        ("I thought of A, but the answer is B.", 1.0),
        ("The answer is (B).", 1.0),
        ("**Answer: B**", 1.0),
        ("Answer: B) Rome", 1.0),
        ("<answer>B</answer>", 1.0),
        ("The correct answer is option B", 1.0),
        ("The answer is A. No, wait: the answer is B", 1.0),  # the last one counts
        ("The answer is B. No, wait: the answer is A", 0.0),
        (r"The answer is A. \boxed{B}", 1.0),  # a box before a phrase
        ("The answer is B. Option C is wrong, and so is A.", 1.0),
        ("The answer is B because C is wrong", 1.0),
        ("Answer: B, an option that fits", 1.0),
        ("The answer is B. My choice is final.", 1.0),
        ("The answer is not B", 0.0),
        ("Option B is wrong. The answer is C", 0.0),
        ("A", 0.0),
        (r"\boxed{A or B}", 0.0),
        (r"\boxed{B, C}", 0.0),
        (r"\boxed{ABCD}", 0.0),
        ("The answer is A, B, C or D", 0.0),
        ("", 0.0),
        ("Because it is so.", 0.0),
        ("b", 0.0),
        (r"\boxed{}", 0.0),
    ],
)
def test_letters(completion: str, value: float) -> None:
    found = score(completion, "B", CITIES)
    assert found.value == value
    assert bool(found.reason) == (value == 0.0)


@pytest.mark.parametrize(
    ("completion", "reference", "options", "value"),
    [
        (r"\boxed{Rome}", "B", {}, 1.0),
        (r"\boxed{rome}", "B", {}, 1.0),
        (r"\boxed{rome}", "B", {"ignore_case": False}, 0.0),
        (r"\boxed{Rome}", "Rome", {}, 1.0),
        (r"\boxed{B}", "Rome", {}, 1.0),
        (r"\boxed{Rome}", "B", {"compare": "text"}, 0.0),  # the reference has no text to compare
        (r"\boxed{B}", "B) Rome", {"compare": "text"}, 0.0),
        (r"\boxed{B) Rome}", "B) Rome", {"compare": "both"}, 1.0),
        (r"\boxed{B}", "B) Rome", {"compare": "both"}, 0.0),
        (r"\boxed{A city in Spain}", "C", {}, 1.0),  # not option A
        (r"\boxed{A city in Spain}", "A", {}, 0.0),
        (r"\boxed{Paris}", "B", {"compare": "letter"}, 0.0),
        ("I say C. Then B", "B", {"extract": "last_letter"}, 1.0),
        ("The answer is B", "B", {"extract": "boxed"}, 0.0),
        ("The answer is B", "B", {"extract": "tag"}, 0.0),
        ("The answer is B", "B", {"extract": "phrase"}, 1.0),
        ("B", "B", {"extract": "phrase"}, 0.0),
        (" B ", "B", {"extract": "whole"}, 1.0),
    ],
)
def test_texts_and_modes(completion: str, reference: str, options: dict[str, Any], value: float) -> None:
    assert score(completion, reference, CITIES, **options).value == value


def test_options_by_letter_and_rows_without_options() -> None:
    assert (
        score(r"\boxed{two}", "b", {"a": "one", "b": "two"}).outcome is ScoreOutcome.ERROR
    )  # "b" is no letter
    assert score(r"\boxed{two}", "B", {"a": "one", "b": "two"}).value == 1.0
    assert score(r"\boxed{B}", "B").value == 1.0
    assert score("The answer is B. The answer is final.", "B").value == 1.0
    assert score(r"\boxed{Rome}", "B) Rome").value == 1.0
    assert score(r"\boxed{E}", "B", CITIES).value == 0.0


@pytest.mark.parametrize(
    ("reference", "choices", "reason"),
    [
        ("E", CITIES, "the reference 'E' names no option"),
        ("A or B", CITIES, "bad row: several options"),
        ("B", "Paris, Rome", "holds str, expected a list"),
        ("B", list("abcdefghijk"), "11 choices, expected at most 10"),
        ("B", {"1": "Paris"}, "choice '1': expected a letter"),
    ],
)
def test_rows_that_cannot_be_used_are_errors(reference: str, choices: Any, reason: str) -> None:
    found = score("B", reference, choices)
    assert found.outcome is ScoreOutcome.ERROR
    assert reason in found.reason


def test_without_a_reference_there_is_nothing_to_say() -> None:
    assert score("B", None, CITIES).outcome is ScoreOutcome.ABSTAIN


@pytest.mark.parametrize(
    ("completion", "value"), [("\\boxed{B}", 1.0), ("\\boxed{(D)}", 1.0), ("\\boxed{A}", 0.0)]
)
def test_a_list_of_references_accepts_any_of_them(completion: str, value: float) -> None:
    rollout = Rollout(completion=completion, reference="a list", columns={"reference": ["B", "D"]})
    assert choice_reward(rollout, ChoiceOptions()).value == value
