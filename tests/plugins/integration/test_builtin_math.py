"""The reward `math`: outcomes become scores, options reach the verifier."""

import pytest
from pydantic import ValidationError

from verl_lite.plugins import Rollout, Score, ScoreOutcome, definition_of
from verl_lite.plugins.builtin import MathRewardOptions, math as plugin
from verl_lite.verifiers import Outcome, Verdict


def scores(pairs: list[tuple[str, str | None]], **options: object) -> list[Score]:
    rollouts = [Rollout(completion=completion, reference=reference) for completion, reference in pairs]
    return plugin.math_reward(rollouts, MathRewardOptions.model_validate(options))


def test_right_wrong_and_unparsed_have_values_and_reasons() -> None:
    right, wrong, unparsed = scores([("\\boxed{0.5}", "1/2"), ("\\boxed{2}", "1/2"), ("\\boxed{1", "1/2")])
    assert (right.value, right.details["matched_by"]) == (1.0, "number")
    assert (wrong.value, wrong.details["extracted"]) == (0.0, "2")
    assert wrong.reason
    assert unparsed.value == 0.0
    assert "not closed" in unparsed.reason


def test_a_bad_reference_is_an_error_and_a_missing_one_an_abstention() -> None:
    bad, missing, fine = scores([("\\boxed{5}", "\\frac{1}{"), ("\\boxed{5}", None), ("\\boxed{5}", "5")])
    assert (bad.value, bad.outcome) == (None, ScoreOutcome.ERROR)
    assert "bad_reference" in bad.reason
    assert (missing.value, missing.outcome) == (None, ScoreOutcome.ABSTAIN)
    assert fine.value == 1.0


@pytest.mark.parametrize(
    ("outcome", "expected"), [(Outcome.TIMEOUT, ScoreOutcome.TIMEOUT), (Outcome.ERROR, ScoreOutcome.ERROR)]
)
def test_time_outs_and_faults_are_never_zero(outcome: Outcome, expected: ScoreOutcome) -> None:
    score = plugin._score(Verdict(outcome=outcome, reason="why"), MathRewardOptions())
    assert (score.value, score.outcome) == (None, expected)
    assert "why" in score.reason


def test_unparsed_may_have_a_value_or_none() -> None:
    assert scores([("no idea", "5")], unparsed=-0.5)[0].value == -0.5
    assert scores([("no idea", "5")], unparsed=None)[0].outcome is ScoreOutcome.ABSTAIN


def test_partial_credit_by_the_share_of_parts() -> None:
    pairs: list[tuple[str, str | None]] = [
        ("\\boxed{1, 2}", "1, 2, 3, 4"),
        ("\\boxed{(1, 5)}", "(1, 2)"),
        ("\\boxed{9}", "1, 2"),
    ]
    assert [score.value for score in scores(pairs)] == [0.0, 0.0, 0.0]
    assert [score.value for score in scores(pairs, partial=0.5)] == [0.25, 0.25, 0.0]


def test_options_reach_the_verifier() -> None:
    pair: list[tuple[str, str | None]] = [("\\boxed{5}", "5 m")]
    assert scores(pair)[0].value == 1.0
    assert scores(pair, units="require")[0].value == 0.0
    assert scores([("5", "5")], mode="strict")[0].value == 0.0
    with pytest.raises(ValidationError):
        MathRewardOptions.model_validate({"unit": "strip"})


def test_it_is_declared_as_a_batch_that_guards_itself() -> None:
    definition = definition_of(plugin.math_reward)
    assert (definition.name, definition.form, definition.isolate) == ("math", "batch", False)


def any_of(completion: str, *references: str) -> Score:
    rollout = Rollout(completion=completion, reference="a list", columns={"reference": list(references)})
    return plugin.math_reward([rollout], MathRewardOptions())[0]


@pytest.mark.parametrize(
    ("completion", "references", "value"),
    [
        ("\\boxed{0.5}", ["1/2", "7"], 1.0),
        ("\\boxed{7}", ["1/2", "7"], 1.0),
        ("\\boxed{8}", ["1/2", "7"], 0.0),
        ("\\boxed{1/2, 7}", ["1/2", "7"], 0.0),  # any of them, not all
        ("\\boxed{1/2, 7}", ["1/2, 7"], 1.0),  # all of them
        ("\\boxed{7}", ["1/2, 7"], 0.0),
        ("\\boxed{1/2, 7}", ["['1/2', '7']"], 1.0),  # a list as Python prints it is one answer
        ("\\boxed{7}", ["['1/2', '7']"], 0.0),
        ("\\boxed{7}", ["\\frac{1}{", "7"], 1.0),  # one that cannot be read does not spoil the others
    ],
)
def test_a_list_of_references_accepts_any_of_them(
    completion: str, references: list[str], value: float
) -> None:
    score = any_of(completion, *references)
    assert (score.value, score.outcome) == (value, ScoreOutcome.OK)


def test_references_that_can_all_not_be_read_are_an_error() -> None:
    score = any_of("\\boxed{7}", "\\frac{1}{", "3+")
    assert (score.value, score.outcome) == (None, ScoreOutcome.ERROR)
