"""Decoupled advantages, against numbers worked out by hand."""

import math
from collections.abc import Mapping

import pytest

from verl_lite.plugins import ComponentScore, Rollout, Score, ScoredRollout, gdpo_advantages


def row(
    group: str, weights: Mapping[str, float], dropped: bool = False, **values: float | None
) -> ScoredRollout:
    parts = {
        name: ComponentScore(
            score=Score(value),
            weight=weights[name],
            contribution=None if value is None else weights[name] * value,
        )
        for name, value in values.items()
    }
    return ScoredRollout(
        rollout=Rollout(completion="", group=group), components=parts, reward=None if dropped else 0.0
    )


W = {"a": 1.0, "b": 0.5}


def test_each_reward_is_normalised_within_its_group_before_they_are_added() -> None:
    # a: mean 1, std 1 -> -1, +1;  b: mean 20, std 10 -> +1, -1, times 0.5
    rows = [row("g", W, a=0.0, b=30.0), row("g", W, a=2.0, b=10.0)]
    assert gdpo_advantages(rows, eps=0.0, normalise_batch=False) == [-0.5, 0.5]
    # over the batch: mean 0, std 0.5
    assert gdpo_advantages(rows, eps=0.0) == [-1.0, 1.0]


def test_sums_that_are_equal_get_different_advantages() -> None:
    # (1,0) and (0,1) sum to 1 both. a: mean 1/4, std sqrt(3)/4; b: mean 1/2, std 1/2
    weights = {"a": 1.0, "b": 1.0}
    rows = [row("g", weights, a=x, b=y) for x, y in ((1.0, 0.0), (0.0, 1.0), (0.0, 1.0), (0.0, 0.0))]
    first, second, _, last = gdpo_advantages(rows, eps=0.0, normalise_batch=False)
    assert first == pytest.approx(math.sqrt(3) - 1)
    assert second == pytest.approx(-1 / math.sqrt(3) + 1)
    assert last == pytest.approx(-1 / math.sqrt(3) - 1)


def test_the_batch_is_normalised_over_all_groups() -> None:
    weights = {"a": 1.0}
    rows = [row(g, weights, a=v) for g, v in (("x", 0.0), ("y", 5.0), ("x", 1.0), ("y", 5.0))]
    # x: -1, +1; y: all equal, 0, 0. Batch mean 0, std sqrt(1/2)
    assert gdpo_advantages(rows) == pytest.approx([-math.sqrt(2), 0.0, math.sqrt(2), 0.0], abs=1e-5)


def test_a_negative_weight_turns_the_reward_around() -> None:
    rows = [row("g", {"a": -2.0}, a=0.0), row("g", {"a": -2.0}, a=3.0)]
    assert gdpo_advantages(rows, eps=0.0, normalise_batch=False) == [2.0, -2.0]


def test_dropped_rows_and_missing_values_are_in_no_mean() -> None:
    rows = [row("g", W, a=0.0, b=1.0), row("g", W, a=2.0, b=None), row("g", W, dropped=True, a=9.0, b=9.0)]
    assert gdpo_advantages(rows, eps=0.0 + 1e-12, normalise_batch=False) == [
        pytest.approx(-1),
        pytest.approx(1),
        None,
    ]


def test_parts_of_a_nested_group_count_through_the_group_alone() -> None:
    weights = {"g": 1.0, "g/a": 1.0}
    parts = [row("p", weights, **{"g/a": value, "g": -value}) for value in (1.0, 3.0)]
    assert gdpo_advantages(parts, eps=0.0, normalise_batch=False) == [1.0, -1.0]


def test_eps_is_added_to_each_rewards_own_deviation() -> None:
    # the deviation of a is 1 whatever its weight: (2 - 1) / (1 + 1) * 4
    rows = [row("g", {"a": 4.0}, a=0.0), row("g", {"a": 4.0}, a=2.0)]
    assert gdpo_advantages(rows, eps=1.0, normalise_batch=False) == [-2.0, 2.0]


def test_nothing_gives_nothing() -> None:
    assert gdpo_advantages([]) == []
    assert gdpo_advantages([row("g", W, dropped=True, a=1.0, b=1.0)]) == [None]


def test_a_flat_group_gives_zero_even_without_eps() -> None:
    rows = [row("g", W, a=0.1, b=1.0), row("g", W, a=0.1, b=1.0)]
    assert gdpo_advantages(rows, eps=0.0) == [0.0, 0.0]
