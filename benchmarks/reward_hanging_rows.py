"""One row in a thousand hangs and holds the GIL: what do the healthy rows lose?

    python benchmarks/reward_hanging_rows.py [--rollouts N] [--every N] [--timeout-s S] [--workers N]

Two passes over the same rollouts, one without and one with hanging rows (a power of huge integers,
one C call that never gives up the GIL). Each hanging row keeps one worker for its deadline; that
time is inherent: `hanging * deadline / workers` seconds of wall time. Prints both wall times, the
time beyond the deadlines, and the throughput of the healthy rows with that time taken off, as a
share of the pass without hanging rows. Exits with 1 below 80%, or when any healthy row has no score.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from verl_lite.plugins import Rollout, ScoreOutcome, reward
from verl_lite.plugins.execution import Execution
from verl_lite.plugins.execution.stats import ExecutionStats
from verl_lite.plugins.testing import component_for

LEAST_SHARE = 0.8


@reward("sum")
def sum_of_squares(rollout: Rollout) -> float:
    """About 100 us of honest work; a power tower never comes back."""
    if rollout.completion == "tower":
        return float(len(str(10 ** (10**10))))
    return float(sum(n * n for n in range(1000 + len(rollout.completion))))


def run_once(rollouts: Sequence[Rollout], timeout_s: float, workers: int) -> tuple[float, ExecutionStats]:
    """Wall seconds; raises when a healthy row lost its score or a hanging one did not time out."""
    component = component_for(sum_of_squares, timeout_s=timeout_s)
    with Execution([component], workers=workers) as execution:
        started = time.perf_counter()
        run = execution.start()
        run.add(rollouts)
        rows = run.finish()
        wall_s = time.perf_counter() - started
        stats = run.stats()
    for rollout, row in zip(rollouts, rows, strict=True):
        expected = ScoreOutcome.TIMEOUT if rollout.completion == "tower" else ScoreOutcome.OK
        if row["sum"].score.outcome is not expected:
            raise SystemExit(f"row {rollout.id}: expected {expected}, got {row['sum']}")
    return wall_s, stats


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=1000)
    parser.add_argument("--timeout-s", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    healthy = [Rollout(completion="2 + 2 = 4", id=str(n)) for n in range(options.rollouts)]
    mixed = list(healthy)
    for n in range(options.every // 2, options.rollouts, options.every):
        mixed[n] = Rollout(completion="tower", id=str(n))
    hanging = sum(rollout.completion == "tower" for rollout in mixed)

    before_s, _ = run_once(healthy, options.timeout_s, options.workers)
    mixed_s, stats = run_once(mixed, options.timeout_s, options.workers)
    after_s, _ = run_once(healthy, options.timeout_s, options.workers)
    without_s = (before_s + after_s) / 2
    deadlines_s = hanging * options.timeout_s / options.workers
    share = (without_s / len(healthy)) / ((mixed_s - deadlines_s) / (len(mixed) - hanging))
    part = stats.components["sum"]
    print(f"without hanging rows   {without_s:7.2f} s ({before_s:.2f} before, {after_s:.2f} after)")
    print(f"with {hanging:5} hanging     {mixed_s:7.2f} s")
    how = f"{hanging} x {options.timeout_s:g} s / {options.workers} workers"
    print(f"  their deadlines      {deadlines_s:7.2f} s ({how})")
    print(f"  everything else      {mixed_s - deadlines_s:7.2f} s")
    print(f"throughput of healthy rows apart from the deadlines: {share:.0%} (at least {LEAST_SHARE:.0%})")
    print(f"outcomes: {part.outcomes[ScoreOutcome.OK]} ok, {part.timeouts} timeout")
    print(f"workers replaced: {dict(stats.workers_replaced)}")
    print(f"slowest rows: {', '.join(f'{slow.row} ({slow.latency_s:.3f} s)' for slow in part.slowest)}")
    return 0 if share >= LEAST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
