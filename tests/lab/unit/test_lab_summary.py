"""Summaries of shards add up to the summary of the file."""

import math
import random
from collections import Counter

import pytest

from verl_lite.lab import Latencies, ScoreSummary
from verl_lite.plugins import ComponentScore, Moments, Rollout, Score, ScoredRollout, ScoreOutcome


def row(index: int, value: float | None) -> ScoredRollout:
    score = Score(value) if value is not None else Score.failed(ScoreOutcome.ERROR, "broken")
    part = ComponentScore(score=score, weight=1.0, contribution=value, latency_s=index / 1000)
    return ScoredRollout(
        rollout=Rollout(completion="", id=f"r{index}"), components={"math": part}, reward=value
    )


def test_moments_by_hand() -> None:
    moments = Moments.of([2.0, 4.0, 9.0])
    # mean 5, squared differences 9 + 1 + 16 = 26
    assert (moments.mean, moments.low, moments.high) == (5.0, 2.0, 9.0)
    assert moments.std == pytest.approx((26 / 3) ** 0.5)


def test_shards_add_up() -> None:
    rows = [row(i, value) for i, value in enumerate([1.0, 0.0, None, 1.0, 0.5, None, 0.0], start=1)]
    whole, left, right = ScoreSummary(), ScoreSummary(), ScoreSummary()
    whole.add(rows)
    left.add(rows[:3])
    right.add(rows[3:])
    left.merge(right)
    assert left.reward.to_json() == pytest.approx(whole.reward.to_json())
    assert left.components["math"].to_json()["latency_p50_s"] == whole.components["math"].latencies.quantile(
        0.5
    )
    assert left.components["math"].values.to_json() == pytest.approx(whole.reward.to_json())
    assert (left.num_rows, left.num_dropped) == (7, 2)
    assert dict(left.components["math"].outcomes) == {"ok": 5, "error": 2}
    assert left.reward.mean == pytest.approx(0.5)
    assert left.slowest[0] == (0.007, "math", "r7")
    assert len(left.slowest) == 5


def test_merging_into_an_empty_summary_keeps_the_numbers() -> None:
    empty, full = ScoreSummary(), ScoreSummary()
    full.add([row(1, 0.25)])
    empty.merge(full)
    assert empty.reward == full.reward
    full.merge(ScoreSummary())
    assert empty.reward == full.reward


def test_latency_quantiles_are_right_to_five_percent() -> None:
    latencies = Latencies()
    latencies.add([millisecond / 1000 for millisecond in range(1, 101)])
    assert latencies.quantile(0.5) == pytest.approx(0.050, rel=0.06)
    assert latencies.quantile(0.99) == pytest.approx(0.099, rel=0.06)


def test_every_latency_lands_in_the_bin_of_its_logarithm() -> None:
    seconds = [random.Random(index).lognormvariate(-8, 3) for index in range(500)] + [0.0, 1e-12]
    latencies = Latencies()
    latencies.add(seconds[:100])
    latencies.add(seconds[100:])
    assert latencies.bins == Counter(math.floor(math.log(max(s, 1e-9)) * 20) for s in seconds)
