"""Diff against small files whose every change was counted by hand."""

import pytest

from verl_lite.errors import DataError
from verl_lite.lab import diff_groups, group_records
from verl_lite.plugins import Rollout
from verl_lite.plugins.records import Record, StoredScore


def record(row: int, group: str, reward: float | None, **components: float | None) -> Record:
    return Record(
        rollout=Rollout(completion=f"text {row}", id=f"r{row}", group=group),
        row=row,
        reward=reward,
        dropped_because="" if reward is not None else "math: error",
        components={
            name: StoredScore(value=value, outcome="ok" if value is not None else "error")
            for name, value in components.items()
        },
    )


def side(rewards: list[float | None], brevity: float) -> list[list[Record]]:
    groups = ["a", "a", "a", "b", "b", "c", "c"]
    records = [
        record(row, group, reward, math=reward, brevity=brevity * row)
        for row, (group, reward) in enumerate(zip(groups, rewards, strict=True), start=1)
    ]
    return group_records(records)


BEFORE = side([1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0], 0.1)
AFTER = side([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, None], 0.2)


def test_flips_are_counted_each_way() -> None:
    report = diff_groups(BEFORE, AFTER)
    math = report.components["math"]
    assert (math.is_verdict, math.flips_up, math.flips_down) == (True, 2, 1)
    assert dict(math.outcome_changes) == {"ok -> error": 1}
    assert math.num_flips == report.num_flips == 4
    assert math.num_changed == 4
    assert [example.row for example in math.examples] == [1, 2, 4, 7]
    assert (math.examples[0].before, math.examples[0].after) == (1.0, 0.0)


def test_graded_components_have_deltas_and_no_flips() -> None:
    brevity = diff_groups(BEFORE, AFTER).components["brevity"]
    assert (brevity.is_verdict, brevity.num_flips, brevity.num_changed) == (False, 0, 7)
    assert brevity.sum_delta == pytest.approx(0.1 * 28)
    assert brevity.max_abs_delta == pytest.approx(0.7)


def test_what_grpo_would_see() -> None:
    grpo = diff_groups(BEFORE, AFTER).grpo
    assert (grpo.num_groups, grpo.groups_changed) == (3, 3)
    # a: sample 1 goes from best to worst and sample 2 the other way; sample 3 stays below the mean
    assert grpo.advantages_changing_sign == 2
    # a alone changes order: 1 and 2 swap; 1-3 and 2-3 turn from or into ties
    assert (grpo.rank_inversions, grpo.groups_with_rank_changes) == (1, 1)
    assert grpo.gained_all_variance == 1  # b
    assert grpo.lost_all_variance == 1  # c: its one kept sample has nothing to differ from
    assert (grpo.samples_newly_dropped, grpo.samples_no_longer_dropped) == (1, 0)


def test_equal_sides_differ_in_nothing() -> None:
    report = diff_groups(BEFORE, BEFORE)
    assert (report.num_flips, report.reward.num_changed, report.grpo.groups_changed) == (0, 0, 0)


def test_a_component_on_one_side_only_is_absent_on_the_other() -> None:
    without = [[record(1, "a", 1.0)]]
    report = diff_groups(without, [[record(1, "a", 1.0, math=1.0)]])
    assert dict(report.components["math"].outcome_changes) == {"absent -> ok": 1}
    assert report.components["math"].examples == []  # nothing to compare


@pytest.mark.parametrize("other", [BEFORE[:-1], [*BEFORE[:-1], BEFORE[-1][:1]], list(reversed(BEFORE))])
def test_sides_with_other_rollouts_are_refused(other: list[list[Record]]) -> None:
    with pytest.raises(DataError, match="same rollouts"):
        diff_groups(BEFORE, other)
