"""Mean, deviation and GRPO's standardisation: the one definition that training, metrics and the lab use."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

EPS = 1e-6  # added to a standard deviation before dividing by it
_REL_TOL, _ABS_TOL = 1e-9, 1e-12  # sums of a few rewards in another order differ by 1e-15 or so


def has_zero_variance(values: Sequence[float]) -> bool:
    """Whether all are equal but for rounding, as 0.1 + 0.2 and 0.3 are.

    Raises ValueError for no values, and for nan and inf, which have no variance.

    >>> has_zero_variance([0.1 + 0.2, 0.3]), has_zero_variance([0.3, 0.3001]), has_zero_variance([1.0])
    (True, False, True)
    """
    if not all(map(math.isfinite, values)):
        at = next(at for at, value in enumerate(values) if not math.isfinite(value))
        raise ValueError(f"value {at} of {len(values)} is {values[at]}: expected finite numbers")
    return math.isclose(min(values), max(values), rel_tol=_REL_TOL, abs_tol=_ABS_TOL)


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the population standard deviation, which is exactly 0 for values of zero variance.

    >>> mean_and_std([1.0, 3.0]), mean_and_std([0.1] * 3), mean_and_std([])
    ((2.0, 1.0), (0.1, 0.0), (0.0, 0.0))
    """
    if not values:
        return 0.0, 0.0
    if has_zero_variance(values):
        return values[0], 0.0
    return fmean(values), _population_std(values)


def _population_std(values: Sequence[float]) -> float:
    """`statistics.pstdev` to the last bit, at a tenth of its time: exact integers, rounded at the end."""
    ratios = [value.as_integer_ratio() for value in values]
    unit = max([denominator for _, denominator in ratios])  # a power of two: all others divide it
    scaled = [numerator * (unit // denominator) for numerator, denominator in ratios]
    total, count = sum(scaled), len(scaled)
    squares = count * sum([value * value for value in scaled]) - total * total
    return math.isqrt(squares << 256) / (count * unit << 128)


def group_center(rewards_G: Sequence[float]) -> list[float]:
    """reward - mean; exactly 0 when the rewards are equal but for rounding."""
    if has_zero_variance(rewards_G):
        return [0.0] * len(rewards_G)
    mean = fmean(rewards_G)
    return [reward - mean for reward in rewards_G]


def group_standardize(rewards_G: Sequence[float], *, eps: float = EPS) -> list[float]:
    """GRPO's advantages, (reward - mean) / (population std + eps) (arXiv:2402.03300, sec. 4.1.2).

    All 0 when the rewards are equal but for rounding.

    >>> [round(a, 4) for a in group_standardize([1.0, 0.0])], group_standardize([1.0, 1.0])
    ([1.0, -1.0], [0.0, 0.0])
    """
    mean, std = mean_and_std(rewards_G)
    return [(reward - mean) / (std + eps) if std else 0.0 for reward in rewards_G]


@dataclass(slots=True)
class Moments:
    """Count, mean, deviation and range of a stream of numbers (merged as in Chan, Golub, LeVeque 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared differences from the mean
    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def of(cls, values: Sequence[float]) -> "Moments":
        """The moments of these values."""
        if not values:
            return cls()
        mean = sum(values) / len(values)
        squares = sum([(value - mean) ** 2 for value in values])
        return cls(count=len(values), mean=mean, squares=squares, low=min(values), high=max(values))

    def merge(self, other: "Moments") -> None:
        """The moments of both sets of values together."""
        total = self.count + other.count
        if not other.count:
            return
        delta = other.mean - self.mean
        self.squares += other.squares + delta * delta * self.count * other.count / total
        self.mean += delta * other.count / total
        self.count = total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    @property
    def std(self) -> float:
        """The population standard deviation."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def to_json(self) -> dict[str, float | int | None]:
        """Count, mean, standard deviation and bounds by name."""
        if not self.count:
            return {"count": 0, "mean": None, "std": None, "min": None, "max": None}
        return {"count": self.count, "mean": self.mean, "std": self.std, "min": self.low, "max": self.high}
