"""Figures of scoring: latencies, the slowest rows by id, time-outs, errors, replaced workers."""

import heapq
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import ScoreOutcome, SlowRow

NUM_SLOWEST = 5
KEPT_LATENCIES = 100_000  # per component: the latest


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentStats:
    """Over the rows a component was called for; `slowest` starts with the slowest."""

    calls: int
    outcomes: Mapping[ScoreOutcome, int]
    retries: int
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float
    slowest: tuple[SlowRow, ...]

    @property
    def timeouts(self) -> int:
        return self.outcomes.get(ScoreOutcome.TIMEOUT, 0)

    @property
    def errors(self) -> int:
        return self.outcomes.get(ScoreOutcome.ERROR, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStats:
    """`workers_replaced`: reason -> how many worker processes were replaced for it."""

    components: Mapping[str, ComponentStats]
    workers_replaced: Mapping[str, int]

    def metrics(self) -> dict[str, float]:
        """As a flat table; docs/rewards.md documents the names."""
        table: dict[str, float] = {}
        for name, part in self.components.items():
            table[f"reward/{name}/latency_p50_s"] = part.latency_p50_s
            table[f"reward/{name}/latency_p95_s"] = part.latency_p95_s
            table[f"reward/{name}/latency_p99_s"] = part.latency_p99_s
            table[f"reward/{name}/timeouts"] = part.timeouts
            table[f"reward/{name}/errors"] = part.errors
            table[f"reward/{name}/retries"] = part.retries
        table["reward/workers_replaced"] = sum(self.workers_replaced.values())
        return table


@dataclass(slots=True)
class _Part:
    outcomes: Counter[ScoreOutcome] = field(default_factory=Counter)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_LATENCIES))
    retries: int = 0
    slowest: list[SlowRow] = field(default_factory=list)

    def merge(self, other: "_Part") -> None:
        self.outcomes.update(other.outcomes)
        self.latencies.extend(other.latencies)
        self.retries += other.retries
        self.slowest = heapq.nlargest(NUM_SLOWEST, [*self.slowest, *other.slowest])


def _measure(name: str, rollouts: Sequence[Rollout], rows: Sequence[Mapping[str, TimedScore]]) -> _Part:
    scores = [row[name] for row in rows]
    places = [at for at, timed in enumerate(scores) if timed.attempts]
    asked = [scores[at] for at in places]
    # Members of an enum are slow to hash: only the few that are not "ok" are counted one by one.
    others = [timed.score.outcome for timed in asked if timed.score.value is None]
    outcomes: Counter[ScoreOutcome] = Counter(others)
    if len(asked) > len(others):
        outcomes[ScoreOutcome.OK] = len(asked) - len(others)
    latencies = [timed.latency_s for timed in asked]
    slowest = sorted(range(len(asked)), key=latencies.__getitem__, reverse=True)[:NUM_SLOWEST]
    return _Part(
        outcomes=outcomes,
        latencies=deque(latencies, maxlen=KEPT_LATENCIES),
        retries=sum([timed.attempts for timed in asked]) - len(asked),
        slowest=[SlowRow(latencies[i], rollouts[places[i]].id or f"#{places[i]}") for i in slowest],
    )


class StatsCollector:
    """Collects the scores of one run or many. `replaced` is the count that the pool keeps."""

    def __init__(self, names: Sequence[str], replaced: Counter[str]) -> None:
        self._parts = {name: _Part() for name in names}
        self._replaced = replaced
        self._replaced_before = Counter(replaced)

    def add(self, rollouts: Sequence[Rollout], rows: Sequence[Mapping[str, TimedScore]]) -> None:
        for name, part in self._parts.items():
            part.merge(_measure(name, rollouts, rows))

    def merge(self, other: "StatsCollector") -> None:
        for name, part in self._parts.items():
            part.merge(other._parts[name])

    def stats(self) -> ExecutionStats:
        return ExecutionStats(
            components={name: _summary(part) for name, part in self._parts.items()},
            workers_replaced=dict(self._replaced - self._replaced_before),
        )


def _summary(part: _Part) -> ComponentStats:
    latencies = sorted(part.latencies)
    return ComponentStats(
        calls=part.outcomes.total(),
        outcomes=dict(part.outcomes),
        retries=part.retries,
        latency_p50_s=percentile(latencies, 0.50),
        latency_p95_s=percentile(latencies, 0.95),
        latency_p99_s=percentile(latencies, 0.99),
        slowest=tuple(part.slowest),
    )


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The smallest value that at least `fraction` of the ordered values do not exceed; 0.0 for none.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.95)
    (2.0, 4.0)
    """
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * round(fraction * 1000) // 1000)
    return ordered[max(rank, 1) - 1]
