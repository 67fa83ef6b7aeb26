"""The server's counters in Prometheus' text format (version 0.0.4)."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_lite.plugins.score import ScoredRollout

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(_BUCKETS_S, seconds)] += 1
        self.total_s += seconds


@dataclass(slots=True)
class ServiceMetrics:
    """Counted in the event loop's thread. `in_flight` are batches that are being scored."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)  # route, status
    scores: Counter[tuple[str, str]] = field(default_factory=Counter)  # component, outcome
    component_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    request_s: dict[str, _Histogram] = field(default_factory=lambda: defaultdict(_Histogram))
    rollouts: int = 0
    dropped: int = 0
    batches: int = 0
    queued_rollouts: int = 0
    in_flight: int = 0

    def add_request(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        self.request_s[route].add(seconds)

    def add_batch(self, rows: Sequence[ScoredRollout]) -> None:
        self.batches += 1
        self.rollouts += len(rows)
        for row in rows:
            self.dropped += row.reward is None
            for name, part in row.components.items():
                self.scores[name, part.score.outcome.value] += 1
                self.component_s[name] += part.latency_s

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from _series(
            "requests_total", "counter", "Requests answered", {("route", "status"): dict(self.requests)}
        )
        yield from _series(
            "scores_total", "counter", "Scores by outcome", {("component", "outcome"): dict(self.scores)}
        )
        seconds = {(name,): value for name, value in self.component_s.items()}
        yield from _series(
            "component_seconds_total", "counter", "Time of the rewards", {("component",): seconds}
        )
        for name, kind, help, value in (
            ("rollouts_total", "counter", "Rollouts scored", self.rollouts),
            ("dropped_total", "counter", "Rollouts without a reward", self.dropped),
            ("batches_total", "counter", "Batches scored", self.batches),
            ("queued_rollouts", "gauge", "Rollouts that wait", self.queued_rollouts),
            ("batches_in_flight", "gauge", "Batches being scored", self.in_flight),
        ):
            yield from _series(name, kind, help, {(): {(): value}})
        yield from _head("request_seconds", "histogram", "Time of a request")
        for route, histogram in self.request_s.items():
            yield from _histogram_lines(route, histogram)


def _histogram_lines(route: str, histogram: _Histogram) -> Iterator[str]:
    seen = 0
    for edge, count in zip((*map(str, _BUCKETS_S), "+Inf"), histogram.counts, strict=True):
        seen += count
        yield f'verl_lite_request_seconds_bucket{{route="{route}",le="{edge}"}} {seen}'
    yield f'verl_lite_request_seconds_sum{{route="{route}"}} {histogram.total_s}'
    yield f'verl_lite_request_seconds_count{{route="{route}"}} {seen}'


def _series(
    name: str, kind: str, help: str, values: Mapping[tuple[str, ...], Mapping[Any, float]]
) -> Iterator[str]:
    yield from _head(name, kind, help)
    for labels, rows in values.items():
        for row, value in rows.items():
            shown = ",".join(f'{label}="{item}"' for label, item in zip(labels, row, strict=True))
            yield f"verl_lite_{name}{{{shown}}} {value}" if shown else f"verl_lite_{name} {value}"


def _head(name: str, kind: str, help: str) -> Iterator[str]:
    yield f"# HELP verl_lite_{name} {help}."
    yield f"# TYPE verl_lite_{name} {kind}"
