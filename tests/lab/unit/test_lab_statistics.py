"""Every statistic against numbers worked out by hand."""

import pytest

from verl_lite.lab import (
    Confusion,
    calibration_error,
    cohen_kappa,
    group_advantages,
    pair_inversions,
    quantile,
    wilson_interval,
)


def test_wilson_interval_of_eight_in_ten() -> None:
    # (0.8 + 1.92073/10 +- 1.95996*sqrt(0.016 + 0.0096036)) / 1.3841459
    assert wilson_interval(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)


def test_wilson_interval_stays_in_the_unit_interval() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 5)[0] == 0.0
    assert wilson_interval(5, 5)[1] == 1.0


def test_confusion_by_hand() -> None:
    pairs = [(True, True)] * 3 + [(True, False)] + [(False, False)] * 4 + [(False, True)] * 2
    confusion = Confusion.count(pairs)
    assert confusion == Confusion(true_positive=3, false_positive=1, true_negative=4, false_negative=2)
    assert confusion.precision == 0.75
    assert confusion.recall == 0.6
    assert confusion.f1 == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert confusion.accuracy == 0.7


def test_confusion_without_positives_has_no_precision() -> None:
    confusion = Confusion.count([(False, False)])
    assert (confusion.precision, confusion.recall, confusion.f1) == (None, None, None)


def test_kappa_of_the_textbook_example() -> None:
    # observed 0.7, chance 0.5*0.6 + 0.5*0.4 = 0.5
    judged = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert cohen_kappa(judged) == pytest.approx(0.4)
    assert cohen_kappa([(True, True)] * 9) is None


def test_calibration_error_by_hand() -> None:
    # the bin of 0.9 is right half of the time (gap 0.4), the bin of 0.1 never (gap 0.1): 0.25 on average
    assert calibration_error([0.9, 0.9, 0.1, 0.1], [True, False, False, False]) == pytest.approx(0.25)
    assert calibration_error([1.5], [True]) is None


def test_group_advantages_leave_dropped_samples_out() -> None:
    # mean 2, population std 1 over the two kept
    assert group_advantages([3.0, None, 1.0], eps=0.0) == [1.0, None, -1.0]


def test_equal_rewards_have_no_advantage_even_when_their_mean_rounds() -> None:
    assert group_advantages([0.1] * 3) == [0.0, 0.0, 0.0]
    assert group_advantages([None, None]) == [None, None]


def test_pair_inversions_ignore_ties() -> None:
    assert pair_inversions([1.0, 2.0, 3.0], [3.0, 2.0, 2.0]) == 2
    assert pair_inversions([1.0, 1.0], [0.0, 1.0]) == 0


def test_quantile_interpolates() -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert quantile([5.0], 0.99) == 5.0
