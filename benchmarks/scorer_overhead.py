"""What `Scorer.score` costs per rollout when the reward itself costs nothing: scores, composite, metrics.

    python benchmarks/scorer_overhead.py [--rollouts N] [--repeats N] [--workers N]

Three configs: one reward in this process, the same through worker processes, and four rewards in
this process with a gate and a group. Prints the median microseconds per rollout of the whole pass, and
for the first config how they divide. In-process passes are one thread and are timed by its CPU clock,
so that other programs on the machine count less; workers are timed by the wall clock. Exits with 1
above 20 us in-process or 150 us through workers.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_lite.plugins import Message, RewardCatalog, RewardsConfig, Rollout, Scorer, definition_of, reward

IN_PROCESS_LIMIT_US = 20.0
WORKERS_LIMIT_US = 150.0


@reward("here", isolate=False)
def here(rollout: Rollout) -> float:
    return 1.0


@reward("apart")
def apart(rollout: Rollout) -> float:
    return 1.0


CATALOG = RewardCatalog(rewards={"here": definition_of(here), "apart": definition_of(apart)})
HERE = {"use": "here"}
FOUR = {
    "a": HERE,
    "b": {**HERE, "weight": 0.2, "when": "a > 0"},
    "style": {"combine": "product", "weight": 0.1, "rewards": {"c": HERE, "d": HERE}},
}


def measure(
    rewards: Mapping[str, Any],
    rollouts: Sequence[Rollout],
    *,
    repeats: int,
    clock: Callable[[], float] = time.process_time,
    workers: int | None = None,
) -> tuple[float, float]:
    """(whole pass, its execution alone): median microseconds per rollout, after one pass to warm up."""
    config = RewardsConfig.model_validate({"rewards": rewards})
    whole_us, execution_us = [], []
    with Scorer(config, catalog=CATALOG, workers=workers) as scorer:
        for _ in range(repeats + 1):
            started = clock()
            scorer.score(rollouts)
            whole_us.append((clock() - started) / len(rollouts) * 1e6)
            started = clock()
            run = scorer._execution.start()
            run.add(rollouts)
            run.finish()
            execution_us.append((clock() - started) / len(rollouts) * 1e6)
    return statistics.median(whole_us[1:]), statistics.median(execution_us[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    prompt: tuple[Message, ...] = ({"role": "user", "content": "What is 2 + 2?"},)
    rollouts = [
        Rollout(
            completion="The answer is 4.",
            prompt=prompt,
            reference="4",
            columns={"reference": "4", "data_source": "sums"},
            id=str(n),
            group=str(n // 8),
        )
        for n in range(options.rollouts)
    ]
    one_us, execution_us = measure({"a": HERE}, rollouts, repeats=options.repeats)
    print(f"one reward, in-process       {one_us:6.1f} us per rollout (limit {IN_PROCESS_LIMIT_US:g})")
    print(f"  of which execution         {execution_us:6.1f}")
    print(f"  of which composite         {one_us - execution_us:6.1f}")
    four_us, _ = measure(FOUR, rollouts, repeats=options.repeats)
    print(f"four rewards, gate and group {four_us:6.1f} us per rollout, {four_us / 4:.1f} per reward")
    apart_us, _ = measure(
        {"a": {"use": "apart"}},
        rollouts,
        repeats=options.repeats,
        clock=time.perf_counter,
        workers=options.workers,
    )
    print(f"one reward, worker processes {apart_us:6.1f} us per rollout (limit {WORKERS_LIMIT_US:g})")
    return 0 if one_us <= IN_PROCESS_LIMIT_US and apart_us <= WORKERS_LIMIT_US else 1


if __name__ == "__main__":
    sys.exit(main())
