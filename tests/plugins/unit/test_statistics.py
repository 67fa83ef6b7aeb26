"""Mean, deviation and GRPO's standardisation, by hand and against Python's own exact statistics."""

import math
import statistics

import pytest
from hypothesis import given, strategies as st

from verl_lite.plugins import Moments, group_center, group_standardize, has_zero_variance, mean_and_std

REWARDS = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 0.1, 0.2, 1.0, 1.2]), min_size=1, max_size=16)


@given(REWARDS)
def test_mean_and_std_are_python_s_own_to_the_last_bit(rewards):
    mean, std = mean_and_std(rewards)
    if std:
        assert (mean, std) == (statistics.fmean(rewards), statistics.pstdev(rewards))
    else:
        assert statistics.pstdev(rewards) == pytest.approx(0.0, abs=1e-2)
        assert max(rewards) == pytest.approx(min(rewards), rel=1e-9, abs=1e-12)


@given(REWARDS)
def test_group_standardize_is_group_center_over_the_deviation(rewards):
    std = mean_and_std(rewards)[1]
    assert group_standardize(rewards, eps=0.5) == [value / (std + 0.5) for value in group_center(rewards)]


@given(REWARDS, REWARDS)
def test_merged_moments_are_those_of_all_values(first, second):
    merged = Moments.of(first)
    merged.merge(Moments.of(second))
    together = Moments.of([*first, *second])
    assert (merged.count, merged.low, merged.high) == (together.count, together.low, together.high)
    assert merged.mean == pytest.approx(together.mean, abs=1e-6)
    assert merged.std == pytest.approx(together.std, abs=1e-3)


def test_moments_by_hand():
    # mean 2, squares 1 + 1
    found = Moments.of([1.0, 3.0])
    assert (found.count, found.mean, found.squares, found.std) == (2, 2.0, 2.0, 1.0)
    assert Moments.of([]).to_json() == {"count": 0, "mean": None, "std": None, "min": None, "max": None}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("estimate", [group_standardize, group_center, mean_and_std, has_zero_variance])
def test_what_is_not_finite_is_refused_not_called_equal(estimate, bad):
    for rewards in ([1.0, bad], [bad, 1.0], [bad], [bad, bad], [0.0, 1.0, bad]):
        with pytest.raises(ValueError, match=rf"value {rewards.index(bad)} of {len(rewards)} is (nan|-?inf)"):
            estimate(rewards)
