"""What the machinery around a reward costs: a reward that does nothing, 100,000 rollouts.

    python benchmarks/reward_overhead.py [--rollouts N] [--repeats N] [--workers N]

Prints the median over the repeats of the wall time per rollout, from `add` of all rollouts to the end
of `finish`, for the same reward in-process and in worker processes. The workers are up before the
clock starts. Exits with 1 when a figure is above its limit.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from verl_lite.plugins import Rollout, reward
from verl_lite.plugins.execution import Execution
from verl_lite.plugins.testing import component_for

LIMITS_US = {"inline": 20.0, "workers": 150.0}


@reward("inline", isolate=False)
def inline(rollout: Rollout) -> float:
    return 1.0


@reward("workers")
def in_workers(rollout: Rollout) -> float:
    return 1.0


def make_rollouts(num_rollouts: int) -> list[Rollout]:
    """Rollouts as offline scoring reads them: prompt, 600 characters of text, a reference, columns."""
    prompt = ({"role": "user", "content": "What is the sum of the first 100 integers? " * 4},)
    return [
        Rollout(
            completion=f"{n} " + "Adding the first and the last gives 101. " * 14,
            prompt=prompt,
            reference="5050",
            columns={"reference": "5050", "source": "sums", "level": 3},
            id=str(n),
            group=str(n // 8),
            sample_index=n % 8,
        )
        for n in range(num_rollouts)
    ]


def measure_us(function: Callable[..., Any], rollouts: list[Rollout], workers: int) -> float:
    """Microseconds per rollout of one pass."""
    with Execution([component_for(function, name="it")], workers=workers) as execution:
        started = time.perf_counter()
        run = execution.start()
        run.add(rollouts)
        rows = run.finish()
        spent_s = time.perf_counter() - started
    assert len(rows) == len(rollouts)
    assert all(row["it"].score.value == 1.0 for row in rows)
    return spent_s / len(rollouts) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    rollouts = make_rollouts(options.rollouts)
    good = True
    for name, function in (("inline", inline), ("workers", in_workers)):
        figures = [measure_us(function, rollouts, options.workers) for _ in range(options.repeats)]
        median = statistics.median(figures)
        good &= median <= LIMITS_US[name]
        shown = " ".join(f"{figure:.1f}" for figure in figures)
        print(f"{name:8} {median:6.1f} us per rollout (limit {LIMITS_US[name]:.0f}; runs: {shown})")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
