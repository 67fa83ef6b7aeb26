"""Each check's numbers on groups small enough to count by hand."""

from typing import Any

import pytest

from verl_lite.errors import DataError
from verl_lite.lab.check import (
    ComponentTally,
    GroupTally,
    LabelTally,
    Level,
    component_findings,
    group_findings,
    label_findings,
    read_label,
)
from verl_lite.plugins import ComponentScore, Rollout, Score, ScoredRollout, ScoreOutcome, StepScore


def scored(
    row: int, *, weights: dict[str, float], columns: dict[str, Any] | None = None, **values: float
) -> ScoredRollout:
    return ScoredRollout(
        rollout=Rollout(completion=f"c{row}", id=f"r{row}", group="g", columns=columns or {}),
        reward=sum(weights[name] * value for name, value in values.items()),
        components={
            name: ComponentScore(score=Score(value), weight=weights[name], contribution=weights[name] * value)
            for name, value in values.items()
        },
    )


def level_of(tally: ComponentTally) -> list[tuple[str, Level]]:
    return [(finding.check, finding.level) for finding in component_findings({"x": tally})]


def tally_of(*values: float | None, outcome: str = "ok") -> ComponentTally:
    tally = ComponentTally()
    for row, value in enumerate(values):
        tally.add(Score(value, ScoreOutcome.OK if value is not None else ScoreOutcome(outcome)), f"r{row}")
    return tally


def test_a_constant_component_is_dead() -> None:
    assert level_of(tally_of(0.0, 0.0)) == [("dead components", Level.FAIL)]


def test_a_component_without_values_is_dead() -> None:
    assert level_of(tally_of(None, None, outcome="abstain")) == [("dead components", Level.FAIL)]


def test_nineteen_equal_values_of_twenty_are_saturated() -> None:
    assert level_of(tally_of(*[1.0] * 19, 0.0)) == [("saturation", Level.WARN)]
    assert level_of(tally_of(*[1.0] * 18, 0.0, 0.0)) == [("saturation", Level.OK)]


def test_errors_past_one_in_twenty_fail() -> None:
    few, many = tally_of(*[0.0, 1.0] * 10), tally_of(0.0, 1.0)
    for tally in (few, many):
        tally.add(Score.failed(ScoreOutcome.ERROR, "broken"), "last")
    assert level_of(few)[1] == ("outcomes", Level.WARN)
    assert level_of(many)[1] == ("outcomes", Level.FAIL)


def test_a_component_that_always_fails_says_why_and_where() -> None:
    tally = ComponentTally()
    for row, name in enumerate(("x", "y")):
        reason = f"KeyError: {name!r} (a.py:3)"
        tally.add(Score.failed(ScoreOutcome.ERROR, reason, where="/w/a.py:3"), f"r{row}")
    dead, outcomes = component_findings({"mine": tally})
    assert dead.message.endswith("\n        2 error: KeyError: 'x'; first row r0; /w/a.py:3")
    assert [reason["count"] for reason in outcomes.numbers["reasons"]] == [2]


def test_a_process_reward_is_judged_by_its_steps() -> None:
    def stepped(*values: float) -> Score:
        return Score(0.0, steps=tuple(StepScore(i, i + 1, value) for i, value in enumerate(values)))

    varied, flat = ComponentTally(), ComponentTally()
    varied.add(stepped(0.0, -1.0), "r0")
    varied.add(stepped(0.0), "r1")
    flat.add(stepped(0.0, 0.0), "r0")
    assert level_of(varied) == [("saturation", Level.OK)]
    assert level_of(flat) == [("saturation", Level.WARN)]


def test_variance_shares_sum_to_one_and_follow_the_covariance() -> None:
    weights = {"math": 1.0, "length": 2.0}
    tally = GroupTally(primary="math")
    # rewards 1, 0, 2: mean 1. math 1, 0, 0 and length 0, 0, 1 (times 2).
    tally.add(
        [
            scored(1, weights=weights, math=1.0, length=0.0),
            scored(2, weights=weights, math=0.0, length=0.0),
            scored(3, weights=weights, math=0.0, length=1.0),
        ]
    )
    # cov(math, r) = 1*0 + 0 + 0 = 0; cov(2 length, r) = 2*1 = 2; var = 0 + 1 + 1 = 2
    assert tally.variance_shares() == {"length": 1.0, "math": 0.0}
    # math orders (1,2) and (1,3); the reward turns (1,3) round
    assert (tally.primary_pairs, tally.overturned_pairs, tally.tied_pairs) == (2, 1, 0)
    levels = {finding.check: finding.level for finding in group_findings(tally)}
    assert levels == {
        "group variance": Level.OK,
        "variance shares": Level.WARN,
        "overturned order": Level.WARN,
        "sum or gdpo": Level.NOTE,
    }


def test_flat_groups_are_counted() -> None:
    tally = GroupTally(primary="math")
    for values in ([1.0, 1.0], [0.0, 0.0], [0.0, 1.0]):
        tally.add([scored(i, weights={"math": 1.0}, math=value) for i, value in enumerate(values)])
    finding = next(group_findings(tally))
    assert finding.numbers == {"num_flat": 2, "num_groups": 3, "share": 2 / 3}
    assert finding.level is Level.WARN


def test_gdpo_what_if_counts_advantages_that_turn_round() -> None:
    # sum: 10 - 2.5 = 7.5 above 0 + 0; gdpo: +-1 each times weights 10 and 25: the second component wins
    weights = {"a": 10.0, "b": -25.0}
    tally = GroupTally(primary="a")
    tally.add([scored(1, weights=weights, a=1.0, b=0.1), scored(2, weights=weights, a=0.0, b=0.0)])
    assert (tally.gdpo_sign_changes, tally.gdpo_flat, tally.num_flat) == (2, 0, 0)


def test_labels_are_counted_and_disagreements_kept() -> None:
    tally = LabelTally()
    for row, (value, label) in enumerate([(1.0, True), (1.0, False), (0.0, True), (0.0, False)], start=1):
        record = scored(row, weights={"math": 1.0}, columns={"source": "a" if row < 3 else "b"}, math=value)
        tally.add(record, "math", label, ("source",))
    assert [(d.id, d.score, d.label) for d in tally.disagreements] == [("r2", 1.0, False), ("r3", 0.0, True)]
    finding = next(label_findings({"math": tally}, "math"))
    assert finding.level is Level.WARN
    assert (finding.numbers["false_positive"], finding.numbers["false_negative"]) == (1, 1)
    assert finding.numbers["slices"]["source=a"]["precision"] == 0.5
    assert finding.numbers["slices"]["source=b"]["recall"] == 0.0


def test_kappa_uses_only_rows_both_judges_scored() -> None:
    first, second = LabelTally(), LabelTally()
    for row in range(1, 5):
        first.add(scored(row, weights={"a": 1.0}, a=float(row % 2)), "a", True, ())
        if row != 2:
            second.add(scored(row, weights={"b": 1.0}, b=float(row % 2)), "b", True, ())
    agreement = [f for f in label_findings({"a": first, "b": second}, "a") if f.check == "agreement"]
    assert agreement[0].numbers == {"kappa": 1.0}


def test_a_graded_score_gets_a_threshold_sweep() -> None:
    tally = LabelTally()
    for row, (value, label) in enumerate([(0.9, True), (0.8, True), (0.3, False), (0.1, False)]):
        tally.add(scored(row, weights={"rm": 1.0}, rm=value), "rm", label, ())
    sweep = next(f for f in label_findings({"rm": tally}, "rm") if f.check == "thresholds")
    assert max(point["f1"] for point in sweep.numbers["sweep"]) == 1.0
    # bins: 0.9 (gap 0.1), 0.8 (0.2), 0.3 (0.3), 0.1 (0.1), one row each
    assert sweep.numbers["calibration_error"] == pytest.approx(0.175)


def test_a_graded_component_is_no_verdict_unless_it_is_the_primary_one() -> None:
    tally = LabelTally()
    for row, value in enumerate([0.9, 0.2]):
        tally.add(scored(row, weights={"length": 1.0}, length=value), "length", False, ())
    assert [f.check for f in label_findings({"length": tally}, "math")] == ["thresholds"]
    assert [f.check for f in label_findings({"length": tally}, "length")] == ["labels", "thresholds"]


@pytest.mark.parametrize(("value", "label"), [(True, True), ("no", False), (1, True), ("Incorrect", False)])
def test_labels_are_read_in_common_spellings(value: object, label: bool) -> None:
    assert read_label(Rollout(completion="", columns={"label": value}), "label") is label


def test_unclear_labels_are_refused() -> None:
    rollout = Rollout(completion="", id="r4", columns={"label": "maybe", "b": 1})
    with pytest.raises(DataError, match="'r4': 'label' is 'maybe'"):
        read_label(rollout, "label")
    with pytest.raises(DataError, match="no label column 'lable'; its columns: b, label"):
        read_label(rollout, "lable")
