"""Step time and idle share of sync, one-ahead and async runs on clusters larger than the one at hand.

An event simulation of the rules in engine/rollout: engines with `num_slots` slots take sequences from one
queue; one token for all sequences of an engine takes `token_s`; a learner takes `train_s` per batch and
`sync_s` for the weights. Rewards (computed while others generate), the network and faults are not simulated.

    python benchmarks/simulate_cluster.py [--plot docs/asynchrony.svg]     8 to 1,024 engines

Batch and learner grow with the engines, so `train_s` stays constant.
"""

import argparse
import heapq
import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

Batch = Sequence[Sequence[int]]  # groups of sequence lengths, in tokens
COLORS = {"sync": "#b3541e", "one_ahead": "#2a7f62", "async": "#2b5c9e"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Seconds as measured: `token_s` one decoding step of an engine, whatever it holds."""

    num_engines: int
    num_slots: int
    token_s: float
    train_s: float
    sync_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Means over the steps in the middle. `engines_idle` counts slots without a sequence, `engines_empty`
    engines without any; `staleness` is of each group's oldest token, in updates."""

    step_s: float
    engines_idle: float
    engines_empty: float
    learner_idle: float
    staleness: float


@dataclass(slots=True)
class _Engine:
    running: list[tuple[float, int]] = field(default_factory=list)  # heap of (token count at its end, group)
    count: float = 0.0  # decoding steps done
    at: float = 0.0  # the time that `count` is of


class Engines:
    """What the engines have done by `now`. `submit` adds groups, the two `run_` methods let time pass."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._engines = [_Engine() for _ in range(cluster.num_engines)]
        self._queue: deque[tuple[int, int]] = deque()  # (tokens, group)
        self._events: list[tuple[float, int]] = []  # (time, engine): the next end there; may be out of date
        self._free = [(0, index) for index in range(cluster.num_engines)]  # heap of (sequences, engine)
        self._left: list[int] = []  # unfinished sequences of each group
        self.began: list[int | None] = []  # the version that began each group
        self.finished: list[int] = []  # groups in the order of their end
        self.finished_at: list[float] = []
        self.now = 0.0
        self.version = 0
        self.slot_s = self.engine_s = 0.0  # with a sequence

    def submit(self, batch: Batch) -> None:
        for lengths in batch:
            self._queue.extend((length, len(self._left)) for length in lengths)
            self._left.append(len(lengths))
            self.began.append(None)
        while self._queue and (index := self._emptiest()) is not None:
            self._take(index)
            heapq.heappush(self._free, (self._held(index), index))

    def _emptiest(self) -> int | None:
        """The engine with the fewest sequences; None when all are full."""
        while True:
            held, index = self._free[0]
            if held == self._held(index):
                return index if held < self._cluster.num_slots else None
            heapq.heappop(self._free)  # out of date; there is a newer one of this engine

    def _held(self, index: int) -> int:
        return len(self._engines[index].running)

    def _advance(self, engine: _Engine) -> None:
        """Bring the engine to `now`."""
        passed = self.now - engine.at
        if engine.running:
            engine.count += passed / self._cluster.token_s
            self.slot_s += passed * len(engine.running)
            self.engine_s += passed
        engine.at = self.now

    def _take(self, index: int) -> None:
        engine = self._engines[index]
        self._advance(engine)
        tokens, group = self._queue.popleft()
        if self.began[group] is None:
            self.began[group] = self.version
        heapq.heappush(engine.running, (engine.count + tokens, group))
        self._schedule(index)

    def _schedule(self, index: int) -> None:
        engine = self._engines[index]
        left = max(engine.running[0][0] - engine.count, 0.0)
        heapq.heappush(self._events, (self.now + left * self._cluster.token_s, index))

    def run_to(self, time: float) -> None:
        while self._events and self._events[0][0] <= time:
            self._next_end()
        self.now = max(self.now, time)

    def run_until(self, num_groups: int) -> float:
        """Run until the given number of groups has ended; returns the time."""
        while len(self.finished) < num_groups:
            self._next_end()
        return self.finished_at[num_groups - 1]

    def settle(self) -> None:
        """Count what is under way up to `now`."""
        for engine in self._engines:
            self._advance(engine)

    def _next_end(self) -> None:
        time, index = heapq.heappop(self._events)
        engine = self._engines[index]
        self.now = max(self.now, time)
        if not engine.running:
            return
        self._advance(engine)
        if engine.running[0][0] > engine.count + 1e-6:
            return  # of an end that was put in its place by a shorter sequence
        group = heapq.heappop(engine.running)[1]
        self._left[group] -= 1
        if not self._left[group]:
            self.finished.append(group)
            self.finished_at.append(self.now)
        if self._queue:
            self._take(index)
            return
        heapq.heappush(self._free, (self._held(index), index))
        if engine.running:
            self._schedule(index)


def simulate(cluster: Cluster, batches: Sequence[Batch], *, mode: str, max_lag: int = 1) -> Result:
    """One run over `batches`, all of the same number of groups; mode as asynchrony.mode."""
    engines, num_groups = Engines(cluster), len(batches[0])
    ends, waits, lags, busy = [], [], [], []
    lag = {"sync": 0, "one_ahead": 1, "async": max_lag}[mode]
    submitted = 0
    for step in range(len(batches)):
        # sync hands out batch t at step t, one_ahead t + 1 once batch t is in, async up to t + max_lag
        first = step + 1 if mode == "one_ahead" and step == 0 else min(step + lag + 1, len(batches))
        while submitted < first:
            engines.submit(batches[submitted])
            submitted += 1
        began = engines.now
        engines.run_until((step + 1) * num_groups)
        ready = max(began, engines.finished_at[(step + 1) * num_groups - 1])
        engines.run_to(ready)
        if mode == "one_ahead" and submitted == step + 1 < len(batches):
            engines.submit(batches[submitted])
            submitted += 1
        trained = ready + cluster.train_s
        groups = engines.finished[step * num_groups : (step + 1) * num_groups]
        lags.append(fmean(step - (engines.began[group] or 0) for group in groups))
        if mode == "one_ahead" and step + 1 < len(batches):  # weights move when the next batch is in
            trained = max(trained, engines.run_until((step + 2) * num_groups))
        engines.run_to(trained + cluster.sync_s)
        engines.version = step + 1
        engines.settle()
        ends.append(engines.now)
        waits.append(engines.now - (ends[-2] if step else 0.0) - cluster.train_s - cluster.sync_s)
        busy.append((engines.slot_s, engines.engine_s))
    return _summed(cluster, ends, waits, lags, busy)


def _summed(
    cluster: Cluster,
    ends: Sequence[float],
    waits: Sequence[float],
    lags: Sequence[float],
    busy: Sequence[tuple[float, float]],
) -> Result:
    """Without the first and last quarter, where there is nothing to overlap with."""
    low, high = len(ends) // 4, len(ends) - len(ends) // 4 - 1
    span, steps = ends[high] - ends[low], high - low
    engines_s = span * cluster.num_engines
    return Result(
        step_s=span / steps,
        engines_idle=_rest((busy[high][0] - busy[low][0]) / (engines_s * cluster.num_slots)),
        engines_empty=_rest((busy[high][1] - busy[low][1]) / engines_s),
        learner_idle=sum(waits[low + 1 : high + 1]) / span,
        staleness=fmean(lags[low + 1 : high + 1]),
    )


def _rest(share: float) -> float:
    """1 - share; rounding of sums must not leave less than 0."""
    return max(1 - share, 0.0)


def lognormal_lengths(*, median: int, sigma: float, limit: int, seed: int) -> Iterator[int]:
    """Completion lengths: heavy-tailed, cut at `limit`."""
    chooser = random.Random(seed)
    while True:
        yield max(min(round(chooser.lognormvariate(math.log(median), sigma)), limit), 1)


def make_batches(lengths: Iterator[int], *, steps: int, num_groups: int, num_samples: int) -> list[Batch]:
    return [[[next(lengths) for _ in range(num_samples)] for _ in range(num_groups)] for _ in range(steps)]


def predict(options: argparse.Namespace) -> None:
    """The table, and the plot, of clusters of several sizes."""
    modes = [("sync", 1), ("one_ahead", 1), ("async", 1), ("async", 2), ("async", 4)]
    print(
        f"lengths: lognormal, median {options.median}, sigma {options.sigma}, at most {options.limit}; "
        f"{options.groups} groups of {options.samples} per engine and step, {options.slots} slots; "
        f"{options.token_ms} ms per token, train {options.train_s} s, sync {options.sync_s} s\n"
    )
    print("| engines | mode | step s | x sync | slots idle | engines empty | learner idle | staleness |")
    print("|---|---|---|---|---|---|---|---|")
    curves: dict[str, list[tuple[int, float]]] = {}
    for num_engines in options.engines:
        cluster = Cluster(
            num_engines=num_engines,
            num_slots=options.slots,
            token_s=options.token_ms / 1000,
            train_s=options.train_s,
            sync_s=options.sync_s,
        )
        lengths = lognormal_lengths(median=options.median, sigma=options.sigma, limit=options.limit, seed=0)
        batches = make_batches(
            lengths, steps=options.steps, num_groups=options.groups * num_engines, num_samples=options.samples
        )
        base = 0.0
        for mode, max_lag in modes:
            result = simulate(cluster, batches, mode=mode, max_lag=max_lag)
            base = base or result.step_s
            name = f"async, max_lag {max_lag}" if mode == "async" else mode
            curves.setdefault(name, []).append((num_engines, result.step_s))
            print(
                f"| {num_engines:,} | {name} | {result.step_s:.1f} | {base / result.step_s:.2f} | "
                f"{result.engines_idle:.0%} | {result.engines_empty:.0%} | {result.learner_idle:.0%} | "
                f"{result.staleness:.2f} |",
                flush=True,
            )
    if options.plot is not None:
        options.plot.write_text(plot(curves), encoding="utf-8")


def plot(curves: dict[str, list[tuple[int, float]]]) -> str:
    """Step time over engines as SVG."""
    width, height, left, top, bottom, right = 720, 380, 60, 30, 50, 150
    xs = sorted({x for points in curves.values() for x, _ in points})
    most = max(y for points in curves.values() for _, y in points) * 1.08

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log2(x) - math.log2(xs[0])) / max(math.log2(xs[-1]) - math.log2(xs[0]), 1)
        return left + across * (width - left - right), height - bottom - y / most * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="18" fill="#222">Seconds a step, by engines (simulated)</text>',
    ]
    tick = 10 ** math.floor(math.log10(most)) / (1 if most >= 4 * 10 ** math.floor(math.log10(most)) else 2)
    for step in range(math.floor(most / tick) + 1):
        _, y = place(xs[0], step * tick)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#444">{step * tick:g}</text>'
        )
    for x in xs:
        across, down = place(x, 0)
        parts.append(
            f'<text x="{across:.1f}" y="{down + 18:.1f}" text-anchor="middle" fill="#444">{x:,}</text>'
        )
    last_label = math.inf
    for name, points in sorted(curves.items(), key=lambda item: item[1][-1][1]):
        color = COLORS[name.split(",")[0]]
        dash = {"async, max_lag 1": "2 4", "async, max_lag 2": "7 4"}.get(name, "")
        line = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>'
        )
        across, down = place(*points[-1])
        last_label = min(down + 4, last_label - 15)  # labels do not cover each other
        parts.append(f'<text x="{across + 8:.1f}" y="{last_label:.1f}" fill="{color}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engines", type=int, nargs="+", default=[8, 32, 128, 512, 1024])
    parser.add_argument("--slots", type=int, default=64, help="sequences that an engine holds at a time")
    parser.add_argument("--groups", type=int, default=16, help="groups a step, an engine")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--median", type=int, default=1000, help="tokens")
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--limit", type=int, default=16_384, help="rollout.max_new_tokens")
    parser.add_argument("--token-ms", type=float, default=25.0)
    parser.add_argument("--train-s", type=float, default=90.0)
    parser.add_argument("--sync-s", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--plot", type=Path, help="an SVG of the step times")
    predict(parser.parse_args())


if __name__ == "__main__":
    main()
