"""What it costs to score in Ray actors instead of beside the trainer: microseconds of the driver per rollout.

    python benchmarks/reward_actors.py [--rollouts 4096] [--tokens 512] [--actors 2]

An isolated reward that returns a constant, so that all time is handing out and taking in. Both sides in one
run, each scored once before. CPU time of the driver's process counts; wall time is shown beside it.
"""

import argparse
import random
import time
from typing import Any

from verl_lite.engine.cluster import RayRuntime, RewardActors
from verl_lite.engine.config import ClusterConfig, RewardActorsConfig
from verl_lite.plugins import Rollout, reward
from verl_lite.plugins.execution import Execution
from verl_lite.plugins.testing import component_for, fake_rollout


@reward("nothing")
def nothing(rollout: Rollout) -> float:
    return 1.0


def measure(execution: Execution, rollouts: list[Rollout]) -> tuple[float, float]:
    """(CPU seconds of this process, wall seconds) of scoring them, after a first time."""
    with execution:
        for timed in (False, True):
            cpu, wall = time.process_time(), time.perf_counter()
            run = execution.start()
            run.add(rollouts)
            rows = run.finish()
            assert all(row["nothing"].score.value == 1.0 for row in rows)
            if timed:
                return time.process_time() - cpu, time.perf_counter() - wall
    raise AssertionError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--actors", type=int, default=2)
    arguments = parser.parse_args()
    generator = random.Random(0)
    ids = [generator.randrange(150_000) for _ in range(arguments.tokens)]
    logprobs = [-generator.random() for _ in ids]
    extra: dict[str, Any] = {"completion_ids": ids, "logprobs": logprobs}
    text = "x" * (4 * arguments.tokens)
    rollouts = [fake_rollout(text, id=f"r{n}", **extra) for n in range(arguments.rollouts)]
    parts = [component_for(nothing)]
    cluster = ClusterConfig(rewards=RewardActorsConfig(count=arguments.actors))
    rows = {"beside the trainer": measure(Execution(parts, workers=arguments.actors), rollouts)}
    with RayRuntime(cluster, cpus=arguments.actors) as session:
        placement = RewardActors(session.ray, cluster)
        rows[f"{arguments.actors} actors"] = measure(Execution(parts, placement=placement), rollouts)
    print("| where | driver's CPU, us per rollout | wall, us per rollout |\n|---|---|---|")
    for name, (cpu, wall) in rows.items():
        print(f"| {name} | {1e6 * cpu / len(rollouts):.0f} | {1e6 * wall / len(rollouts):.0f} |")


if __name__ == "__main__":
    main()
