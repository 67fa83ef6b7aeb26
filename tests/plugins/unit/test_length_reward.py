"""`length`: a straight line between two lengths."""

import pytest
from pydantic import ValidationError

from verl_lite.plugins import RewardsConfig, Rollout, ScoreOutcome, Scorer
from verl_lite.plugins.builtin import LengthOptions, length_reward


@pytest.mark.parametrize(
    ("size", "value"), [(0, 1.0), (10, 1.0), (11, 0.9), (15, 0.5), (19, 0.1), (20, 0.0), (500, 0.0)]
)
def test_the_line(size: int, value: float) -> None:
    rollout = Rollout(completion="x" * size, completion_ids=(1,) * size)
    for unit in ("tokens", "characters"):
        score = length_reward(rollout, LengthOptions.model_validate({"target": 10, "unit": unit}))
        assert score.value == pytest.approx(value)
        assert score.details == {"length": size}


def test_words_and_another_end() -> None:
    options = LengthOptions(target=2, zero_at=6, unit="words")
    assert length_reward(Rollout(completion=" one two\nthree "), options).value == 0.75


def test_tokens_that_are_not_known_are_no_length() -> None:
    score = length_reward(Rollout(completion="some text"), LengthOptions())
    assert score.value is None
    assert score.outcome is ScoreOutcome.ABSTAIN
    assert length_reward(Rollout(completion=""), LengthOptions()).value == 1.0


@pytest.mark.parametrize(
    "options", [{"target": 0}, {"target": 5, "zero_at": 5}, {"unit": "lines"}, {"taget": 1}]
)
def test_options_that_make_no_line_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LengthOptions.model_validate(options)


@pytest.mark.parametrize(
    ("size", "value"),
    [
        (0, 2.0),  # 1 + (2 - 1) * (1 + cos 0) / 2
        (25, 1.8535533905932737),  # 1 + (1 + cos(pi/4)) / 2
        (50, 1.5),
        (75, 1.1464466094067263),
        (99, 1.0002467198171342),  # 1 + (1 + cos(0.99 pi)) / 2
        (100, -10.0),  # L_max is "exceeded": the sampler stopped it
        (5000, -10.0),
    ],
)
def test_half_a_cosine(size: int, value: float) -> None:
    options = LengthOptions(shape="cosine", unit="characters", max_length=100)
    assert length_reward(Rollout(completion="x" * size), options).value == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("size", "value"),
    [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1.0), (101, -1.0), (10**6, -1.0)],
)
def test_soft_overlong_punishment(size: int, value: float) -> None:
    options = LengthOptions(shape="overlong", max_length=100, buffer=20)
    rollout = Rollout(completion="x" * bool(size), completion_ids=(1,) * size)
    assert length_reward(rollout, options).value == pytest.approx(value)


def test_the_cosine_reward_of_the_paper_is_two_lengths_behind_gates() -> None:
    """arXiv:2502.03373: right answers +2 .. +1, wrong ones -10 .. 0, and -10 at the limit."""
    shape = {"shape": "cosine", "unit": "characters", "max_length": 8}
    right = {**shape, "at_zero": 2.0, "at_max": 1.0, "exceeded": -10.0}
    wrong = {**shape, "at_zero": -10.0, "at_max": 0.0, "exceeded": -10.0}
    config = RewardsConfig.model_validate(
        {
            "rewards": {
                "correct": {"use": "exact", "weight": 0.0},
                "right": {"use": "length", "when": "correct > 0", "options": right},
                "wrong": {"use": "length", "when": "correct <= 0", "options": wrong},
            }
        }
    )
    texts = ["1234", "abcd", "12345678", "ab"]
    references = ["1234", "1234", "12345678", "1234"]
    rollouts = [Rollout(completion=text, reference=ref) for text, ref in zip(texts, references, strict=True)]
    with Scorer(config) as scorer:
        rewards = [row.reward for row in scorer.score(rollouts).rows]
    # half way: 1 + 0.5, 0 - 5; at the limit -10; a quarter: -10 * (1 + cos(pi/4)) / 2
    assert rewards == pytest.approx([1.5, -5.0, -10.0, -8.535533905932738])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "cosine", "target": 5}, "shape cosine does not read target; it reads: at_max, at_zero"),
        ({"buffer": 5}, "shape linear does not read buffer"),
        ({"shape": "overlong", "max_length": 10, "buffer": 11}, "must not be above max_length=10"),
        ({"shape": "cosine", "at_max": float("inf")}, "finite number"),
    ],
)
def test_options_of_another_shape_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LengthOptions.model_validate(options)
