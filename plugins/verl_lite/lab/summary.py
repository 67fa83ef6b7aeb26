"""What a scoring pass found, in tallies that add up over shards and never grow with the file."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any

from verl_lite.plugins import ScoredRollout

__all__ = ["ComponentSummary", "Latencies", "Moments", "ScoreSummary"]

_BINS_PER_E = 20  # latencies are counted in bins 5% wide
_NUM_SLOWEST = 5


@dataclass(slots=True)
class Moments:
    """Count, mean, deviation and range of a stream of numbers (Welford 1962; merged as Chan et al. 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared differences from the mean
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float) -> None:
        self.count += 1
        delta = value - self.mean
        self.mean += delta / self.count
        self.squares += delta * (value - self.mean)
        self.low = min(self.low, value)
        self.high = max(self.high, value)

    def merge(self, other: "Moments") -> None:
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
        if not self.count:
            return {"count": 0, "mean": None, "std": None, "min": None, "max": None}
        return {"count": self.count, "mean": self.mean, "std": self.std, "min": self.low, "max": self.high}


@dataclass(slots=True)
class Latencies:
    """Seconds, counted in bins 5% wide: quantiles are right to 5% whatever the number of rows."""

    bins: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        self.bins[math.floor(math.log(max(seconds, 1e-9)) * _BINS_PER_E)] += 1

    def quantile(self, share: float) -> float:
        """The upper edge of the bin the quantile falls in; nan before the first latency."""
        needed = share * self.bins.total()
        seen = 0
        for index in sorted(self.bins):
            seen += self.bins[index]
            if seen >= needed:
                return math.exp((index + 1) / _BINS_PER_E)
        return math.nan


@dataclass(slots=True)
class ComponentSummary:
    values: Moments = field(default_factory=Moments)
    outcomes: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)

    def merge(self, other: "ComponentSummary") -> None:
        self.values.merge(other.values)
        self.outcomes += other.outcomes
        self.latencies.bins += other.latencies.bins

    def to_json(self) -> dict[str, Any]:
        return {
            **self.values.to_json(),
            "outcomes": dict(self.outcomes),
            "latency_p50_s": self.latencies.quantile(0.5),
            "latency_p95_s": self.latencies.quantile(0.95),
            "latency_p99_s": self.latencies.quantile(0.99),
        }


@dataclass(slots=True)
class ScoreSummary:
    """Tallies of a file. `slowest` holds (seconds, component, row id) of the slowest calls."""

    reward: Moments = field(default_factory=Moments)
    components: dict[str, ComponentSummary] = field(default_factory=dict)
    num_dropped: int = 0
    num_bad_rows: int = 0
    num_cached: int = 0
    slowest: list[tuple[float, str, str]] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def num_rows(self) -> int:
        return self.reward.count + self.num_dropped

    def add(self, rows: Iterable[ScoredRollout]) -> None:
        for row in rows:
            if row.reward is None:
                self.num_dropped += 1
            else:
                self.reward.add(row.reward)
            for name, part in row.components.items():
                summary = self.components.get(name)
                if summary is None:
                    summary = self.components[name] = ComponentSummary()
                summary.outcomes[part.score.outcome.value] += 1
                if part.score.value is not None:
                    summary.values.add(part.score.value)
                summary.latencies.add(part.latency_s)
                if len(self.slowest) < _NUM_SLOWEST or part.latency_s > self.slowest[-1][0]:
                    self._keep_slowest([(part.latency_s, name, row.rollout.id)])

    def merge(self, other: "ScoreSummary") -> None:
        self.reward.merge(other.reward)
        for name, summary in other.components.items():
            self.components.setdefault(name, ComponentSummary()).merge(summary)
        self.num_dropped += other.num_dropped
        self.num_bad_rows += other.num_bad_rows
        self.num_cached += other.num_cached
        self._keep_slowest(other.slowest)

    def _keep_slowest(self, more: list[tuple[float, str, str]]) -> None:
        self.slowest = nlargest(_NUM_SLOWEST, self.slowest + more)

    def to_json(self) -> dict[str, Any]:
        return {
            "num_rows": self.num_rows,
            "num_dropped": self.num_dropped,
            "num_bad_rows": self.num_bad_rows,
            "num_cached": self.num_cached,
            "wall_s": self.wall_s,
            "rows_per_s": self.num_rows / self.wall_s if self.wall_s else None,
            "reward": self.reward.to_json(),
            "components": {name: part.to_json() for name, part in self.components.items()},
            "slowest": [{"latency_s": s, "component": name, "id": row} for s, name, row in self.slowest],
        }
