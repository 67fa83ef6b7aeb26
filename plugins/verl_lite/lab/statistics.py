"""The statistics the lab reports, each small enough to check by hand."""

import math
import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from verl_lite.plugins.statistics import EPS, group_standardize

_Z_95 = 1.959963984540054  # the 97.5% quantile of the normal distribution


def wilson_interval(successes: int, trials: int, *, z: float = _Z_95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927), 95% by default; (0, 1) for no trials.

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Counts of a yes/no decision against a yes/no label."""

    true_positive: int = 0
    false_positive: int = 0
    true_negative: int = 0
    false_negative: int = 0

    @classmethod
    def count(cls, pairs: Sequence[tuple[bool, bool]]) -> "Confusion":
        tally = dict.fromkeys(((True, True), (True, False), (False, False), (False, True)), 0)
        for pair in pairs:
            tally[pair] += 1
        return cls(
            true_positive=tally[True, True],
            false_positive=tally[True, False],
            true_negative=tally[False, False],
            false_negative=tally[False, True],
        )

    @property
    def total(self) -> int:
        return self.true_positive + self.false_positive + self.true_negative + self.false_negative

    @property
    def accuracy(self) -> float | None:
        return _ratio(self.true_positive + self.true_negative, self.total)

    @property
    def precision(self) -> float | None:
        """The share of accepted rows that the label accepts; None when nothing was accepted."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float | None:
        """The share of rows the label accepts that were accepted; None when the label accepts none."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float | None:
        return _ratio(
            2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative
        )

    @property
    def precision_interval(self) -> tuple[float, float]:
        return wilson_interval(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall_interval(self) -> tuple[float, float]:
        return wilson_interval(self.true_positive, self.true_positive + self.false_negative)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Agreement of two raters beyond chance (Cohen 1960), over any number of categories.

    None without pairs, and where chance alone would agree fully.

    >>> cohen_kappa([("a", "a"), ("a", "b"), ("b", "b"), ("tie", "tie")])
    0.636363636364
    """
    if not pairs:
        return None
    total = len(pairs)
    observed = sum(first == second for first, second in pairs) / total
    firsts, seconds = Counter(first for first, _ in pairs), Counter(second for _, second in pairs)
    chance = sum(count * seconds[name] for name, count in firsts.items()) / total**2
    if chance >= 1.0:
        return None
    return round((observed - chance) / (1 - chance), 12)


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Scores between `low` and `high`: their mean, the share with a true label, and their number."""

    low: float
    high: float
    mean_score: float
    share: float
    count: int


def calibration_bins(
    scores: Sequence[float], labels: Sequence[bool], *, num_bins: int = 10
) -> list[CalibrationBin]:
    """A reliability diagram: the non-empty bins of equal width over [0, 1], lowest first."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(num_bins)]
    for score, label in zip(scores, labels, strict=True):
        bins[min(int(score * num_bins), num_bins - 1)].append((score, label))
    return [
        CalibrationBin(
            low=at / num_bins,
            high=(at + 1) / num_bins,
            mean_score=sum(score for score, _ in rows) / len(rows),
            share=sum(label for _, label in rows) / len(rows),
            count=len(rows),
        )
        for at, rows in enumerate(bins)
        if rows
    ]


def calibration_error(scores: Sequence[float], labels: Sequence[bool], *, num_bins: int = 10) -> float | None:
    """Expected calibration error of probabilities in [0, 1] over equal-width bins (Guo et al. 2017).

    None when a score lies outside [0, 1] and so is not a probability.

    >>> calibration_error([0.9, 0.9, 0.1, 0.1], [True, False, False, False])
    0.25
    """
    if not scores or min(scores) < 0.0 or max(scores) > 1.0:
        return None
    bins = calibration_bins(scores, labels, num_bins=num_bins)
    return round(sum(abs(one.mean_score - one.share) * one.count for one in bins) / len(scores), 12)


def group_advantages(rewards: Sequence[float | None], *, eps: float = EPS) -> list[float | None]:
    """GRPO's advantages of one group (`group_standardize`); dropped samples (None) stay None, uncounted.

    >>> group_advantages([1.0, 0.0, None], eps=0.0)
    [1.0, -1.0, None]
    """
    kept = iter(group_standardize([reward for reward in rewards if reward is not None], eps=eps))
    return [None if reward is None else next(kept) for reward in rewards]


def pair_inversions(first: Sequence[float], second: Sequence[float]) -> int:
    """How many pairs of samples are ordered one way by `first` and strictly the other way by `second`.

    >>> pair_inversions([1.0, 2.0, 3.0], [3.0, 2.0, 2.0])
    2
    """
    count = 0
    for i in range(len(first)):
        for j in range(i):
            count += (first[i] - first[j]) * (second[i] - second[j]) < 0
    return count


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """An unbiased estimate of pass@k, one of k samples right (Chen et al. 2021, arXiv:2107.03374, eq. 1).

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 3, 2)
    (0.25, 0.5, 1.0)
    """
    if not 0 < k <= num_samples:
        raise ValueError(f"pass@{k} needs at least {k} samples, got {num_samples}")
    return 1.0 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """The two-sided exact p-value that two paired yes/no results differ by chance (McNemar 1947).

    The counts are of the pairs on which the two disagree.

    >>> mcnemar_exact(1, 5)
    0.21875
    """
    total = only_first + only_second
    tail = sum(math.comb(total, i) for i in range(min(only_first, only_second) + 1))
    return min(1.0, 2.0 * tail / float(2**total))


def mean_interval(
    values: Sequence[float], *, num_resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean (Efron 1979); of differences, the paired bootstrap.

    >>> mean_interval([1.0, 1.0, 1.0])
    (1.0, 1.0)
    """
    if not values:
        return math.nan, math.nan
    generator = random.Random(seed)
    count = len(values)
    means = [sum(generator.choices(values, k=count)) / count for _ in range(num_resamples)]
    return quantile(means, (1 - level) / 2), quantile(means, (1 + level) / 2)


def quantile(values: Sequence[float], share: float) -> float:
    """The `share` quantile by linear interpolation between order statistics; nan for no values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
