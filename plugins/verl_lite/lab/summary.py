"""Tallies of a scoring pass: they add up over shards and do not grow with the file."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import nlargest

from verl_lite.lab.reasons import Reason, ReasonTally
from verl_lite.plugins import Component, ScoredRollout
from verl_lite.plugins.execution.calls import source_of
from verl_lite.plugins.statistics import Moments

_BINS_PER_E = 20  # latencies are counted in bins 5% wide
_NUM_SLOWEST = 5


@dataclass(slots=True)
class Latencies:
    """Seconds, counted in bins 5% wide: quantiles are exact to 5%, whatever the number of rows."""

    bins: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: Sequence[float]) -> None:
        ordered = sorted(seconds)
        first = 0
        while first < len(ordered):  # once per bin, not once per number
            index = math.floor(math.log(max(ordered[first], 1e-9)) * _BINS_PER_E)
            end = bisect_left(ordered, math.exp((index + 1) / _BINS_PER_E), first + 1)
            self.bins[index] += end - first
            first = end

    def quantile(self, share: float) -> float:
        """The upper edge of the quantile's bin; nan before the first latency."""
        needed = share * self.bins.total()
        seen = 0
        for index in sorted(self.bins):
            seen += self.bins[index]
            if seen >= needed:
                return math.exp((index + 1) / _BINS_PER_E)
        return math.nan


@dataclass(slots=True)
class ComponentSummary:
    """`reasons` are those of the rows without a value, `source` is the reward's "file:line"."""

    values: Moments = field(default_factory=Moments)
    outcomes: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    reasons: ReasonTally = field(default_factory=ReasonTally)
    source: str = ""

    @property
    def scored_nothing(self) -> bool:
        """Whether it ran on rows and gave none of them a value."""
        return bool(self.reasons.kinds) and not self.values.count

    @property
    def why(self) -> list[Reason]:
        """The commonest reasons for no value."""
        return self.reasons.commonest(source=self.source)

    def merge(self, other: "ComponentSummary") -> None:
        self.values.merge(other.values)
        self.outcomes += other.outcomes
        self.latencies.bins += other.latencies.bins
        self.reasons.merge(other.reasons)

    def to_json(self) -> dict[str, object]:
        return {
            **self.values.to_json(),
            "outcomes": dict(self.outcomes),
            "reasons": self.reasons.to_json(source=self.source),
            "latency_p50_s": self.latencies.quantile(0.5),
            "latency_p95_s": self.latencies.quantile(0.95),
            "latency_p99_s": self.latencies.quantile(0.99),
        }


@dataclass(slots=True)
class ScoreSummary:
    """Tallies of a file. `slowest` holds (seconds, component, row id) of the slowest calls.

    `columns` are those of the first row of each chunk: enough to say what the data set has.
    """

    reward: Moments = field(default_factory=Moments)
    components: dict[str, ComponentSummary] = field(default_factory=dict)
    num_dropped: int = 0
    num_bad_rows: int = 0
    is_cached: bool = False
    slowest: list[tuple[float, str, str]] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)
    wall_s: float = 0.0

    @property
    def num_rows(self) -> int:
        return self.reward.count + self.num_dropped

    @property
    def scored_nothing(self) -> list[str]:
        """The components that ran and gave no row a value."""
        return [name for name, part in self.components.items() if part.scored_nothing]

    def name_sources(self, components: Iterable[Component]) -> None:
        """Say where each component's reward is defined."""
        for component in components:
            if component.name in self.components:
                self.components[component.name].source = source_of(component.definition)

    def add(self, rows: Sequence[ScoredRollout]) -> None:
        """Add rows that were scored together, column by column: this runs for every rollout of a file."""
        rewards = [row.reward for row in rows if row.reward is not None]
        self.reward.merge(Moments.of(rewards))
        self.num_dropped += len(rows) - len(rewards)
        self.columns.update(rows[0].rollout.columns if rows else ())
        for name in rows[0].components if rows else ():
            parts = [row.components[name] for row in rows]
            summary = self.components.setdefault(name, ComponentSummary())
            values = [part.score.value for part in parts if part.score.value is not None]
            summary.values.merge(Moments.of(values))
            summary.outcomes.update({"ok": len(values)} if values else {})
            if len(values) < len(rows):
                _add_missing(summary, name, rows)
            latencies = [part.latency_s for part in parts]
            summary.latencies.add([seconds for seconds in latencies if seconds > 0])  # 0: never called
            slowest = sorted(range(len(rows)), key=latencies.__getitem__, reverse=True)[:_NUM_SLOWEST]
            self._keep_slowest([(latencies[i], name, rows[i].rollout.id) for i in slowest])

    @property
    def silent(self) -> list[str]:
        """The components that abstained on every row: the column that they need is likely another one."""
        return [n for n, part in self.components.items() if part.outcomes["abstain"] == self.num_rows > 0]

    def merge(self, other: "ScoreSummary") -> None:
        self.reward.merge(other.reward)
        for name, summary in other.components.items():
            self.components.setdefault(name, ComponentSummary()).merge(summary)
        self.num_dropped += other.num_dropped
        self.num_bad_rows += other.num_bad_rows
        self.columns |= other.columns
        self._keep_slowest(other.slowest)

    def _keep_slowest(self, more: list[tuple[float, str, str]]) -> None:
        self.slowest = nlargest(_NUM_SLOWEST, self.slowest + more)

    def to_json(self) -> dict[str, object]:
        return {
            "num_rows": self.num_rows,
            "num_dropped": self.num_dropped,
            "num_bad_rows": self.num_bad_rows,
            "is_cached": self.is_cached,
            "wall_s": self.wall_s,
            "rows_per_s": self.num_rows / self.wall_s if self.wall_s else None,
            "reward": self.reward.to_json(),
            "components": {name: part.to_json() for name, part in self.components.items()},
            "columns": sorted(self.columns),
            "slowest": [{"latency_s": s, "component": name, "id": row} for s, name, row in self.slowest],
        }


def _add_missing(summary: ComponentSummary, name: str, rows: Sequence[ScoredRollout]) -> None:
    for row in rows:
        score = row.components[name].score
        if score.value is None:
            summary.outcomes[score.outcome.value] += 1
            summary.reasons.add(score, row.rollout.id)
