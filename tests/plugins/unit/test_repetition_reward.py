"""`repetition`: the share of repeated n-grams, and the units they cover."""

import pytest
from pydantic import ValidationError

from verl_lite.plugins import Rollout, ScoreOutcome, StepScore
from verl_lite.plugins.builtin import RepetitionOptions, repetition_reward


def options(**given: object) -> RepetitionOptions:
    return RepetitionOptions.model_validate(given)


@pytest.mark.parametrize(
    ("text", "ngram", "value"),
    [
        ("a b c d", 2, 0.0),
        ("a b a b", 2, -1 / 3),  # ab, ba, ab: one of three came before
        ("a a a a", 1, -3 / 4),
        ("A a", 1, -1 / 2),  # words ignore case
        ("a a a a", 2, -2 / 3),  # aa, aa, aa: occurrences may overlap
        ("a b", 3, 0.0),  # shorter than one n-gram
        ("", 1, 0.0),
    ],
)
def test_the_share_of_repeats(text: str, ngram: int, value: float) -> None:
    score = repetition_reward(Rollout(completion=text), options(ngram=ngram))
    assert score.value == pytest.approx(value)
    assert bool(score.reason) == (value < 0)


def test_other_units_and_penalties() -> None:
    tokens = Rollout(completion="xyxy", completion_ids=(5, 6, 5, 6))
    assert repetition_reward(tokens, options(ngram=2, unit="tokens", penalty=-3)).value == pytest.approx(-1.0)
    assert repetition_reward(tokens, options(ngram=2, unit="characters")).value == pytest.approx(-1 / 3)
    assert repetition_reward(tokens, options(ngram=2, unit="characters", penalty=0)).value == 0.0


def test_a_process_reward_on_every_repeated_unit() -> None:
    spread = {"ngram": 2, "spread": "units", "penalty": -0.5}
    score = repetition_reward(Rollout(completion="go up  go up now"), options(**spread))
    assert score.value == 0.0  # all of it is in the steps
    assert score.steps == (StepScore(7, 9, -0.5), StepScore(10, 12, -0.5))
    tokens = Rollout(completion="xyxyx", completion_ids=(5, 6, 5, 6, 5))
    steps = repetition_reward(tokens, options(**spread, unit="tokens")).steps
    # 56, 65, 56 again at 2, 65 again at 3: tokens 2, 3 and 4, each once
    assert [(step.start, step.end, step.unit) for step in steps] == [
        (2, 3, "token"),
        (3, 4, "token"),
        (4, 5, "token"),
    ]


def test_a_late_repeat_covers_only_its_own_words() -> None:
    score = repetition_reward(Rollout(completion="a b c d a b"), options(ngram=2, spread="units"))
    assert [(step.start, step.end) for step in score.steps] == [(8, 9), (10, 11)]


def test_tokens_that_are_not_known_are_no_repetition() -> None:
    score = repetition_reward(Rollout(completion="text"), options(unit="tokens"))
    assert score.outcome is ScoreOutcome.ABSTAIN


@pytest.mark.parametrize(
    "given",
    [{"penalty": 1.0}, {"ngram": 0}, {"unit": "lines"}, {"n": 3}, {"unit": "characters", "spread": "units"}],
)
def test_options_that_reward_repetition_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        options(**given)


def test_the_same_as_trl() -> None:
    """What TRL 1.16.0's get_repetition_penalty_reward gives for these token ids."""
    for ids, ngram, value in (([5] * 5, 2, -0.75), ([1, 2, 3, 4], 2, 0.0), ([1, 2, 1, 2, 1, 3], 2, -0.4)):
        given = options(unit="tokens", ngram=ngram)
        assert repetition_reward(Rollout(completion="x", completion_ids=ids), given).value == pytest.approx(
            value
        )
