"""`exact`: the completion, or its tagged answer, against the reference."""

import pytest

from verl_lite.plugins import Rollout, ScoreOutcome
from verl_lite.plugins.builtin import ExactOptions, exact_reward


@pytest.mark.parametrize(
    ("completion", "reference", "options", "value"),
    [
        ("Paris", "Paris", {}, 1.0),
        (" Paris\n", "Paris", {}, 1.0),
        (" Paris", "Paris", {"ignore_whitespace": False}, 0.0),
        ("paris", "Paris", {}, 0.0),
        ("paris", "Paris", {"ignore_case": True}, 1.0),
        ("It is Paris", "Paris", {}, 0.0),
        ("It is <answer>Paris</answer>.", "Paris", {"answer_tag": "answer"}, 1.0),
        ("<answer>Rome</answer><answer>Paris</answer>", "Paris", {"answer_tag": "answer"}, 1.0),  # the last
        ("<answer>Paris</answer><answer>Rome", "Paris", {"answer_tag": "answer"}, 1.0),  # the last complete
        ("Paris</answer>", "Paris", {"answer_tag": "answer"}, 0.0),
        ("Paris", "Paris", {"answer_tag": "answer"}, 0.0),
        ("", "", {}, 1.0),
    ],
)
def test_exact(completion: str, reference: str, options: dict[str, object], value: float) -> None:
    score = exact_reward(
        Rollout(completion=completion, reference=reference), ExactOptions.model_validate(options)
    )
    assert score.value == value
    assert bool(score.reason) == (value == 0.0)


def test_without_a_reference_there_is_nothing_to_say() -> None:
    assert exact_reward(Rollout(completion="4"), ExactOptions()).outcome is ScoreOutcome.ABSTAIN


@pytest.mark.parametrize(
    ("completion", "reference", "options", "value"),
    [
        ("cafe\u0301", "caf\u00e9", {}, 1.0),
        ("cafe\u0301", "caf\u00e9", {"unicode": "none"}, 0.0),
        ("\uff14", "4", {}, 0.0),
        ("\uff14", "4", {"unicode": "nfkc"}, 1.0),
        ("It's Paris!", "its paris", {"ignore_punctuation": True, "ignore_case": True}, 1.0),
        ("-4", "4", {"ignore_punctuation": True}, 1.0),  # why it is off by default
        ("<a>4</a><a>4</a>", "4", {"answer_tag": "a"}, 1.0),
        ("<a>4</a><a>4</a>", "4", {"answer_tag": "a", "only_answer": True}, 0.0),
    ],
)
def test_what_counts_as_alike(
    completion: str, reference: str, options: dict[str, object], value: float
) -> None:
    score = exact_reward(
        Rollout(completion=completion, reference=reference), ExactOptions.model_validate(options)
    )
    assert score.value == value


@pytest.mark.parametrize(("completion", "value"), [("Paris", 1.0), ("Lutetia", 1.0), ("Rome", 0.0)])
def test_a_list_of_references_accepts_any_of_them(completion: str, value: float) -> None:
    rollout = Rollout(completion=completion, reference="a list", columns={"reference": ["Paris", "Lutetia"]})
    assert exact_reward(rollout, ExactOptions()).value == value
