"""The simulator's predictions beside real runs with 1, 2 and 4 engines that sleep for each token.

Updates only sleep too, so the machine's load matters as little as possible; everything else is a real run.
The simulator gets the lengths of the completions and three times, measured in the one-engine run in mode
sync: an engine's decoding step, an update, a weight sync. From these it predicts every run's step time.

    OMP_NUM_THREADS=1 python benchmarks/check_simulation.py
    OMP_NUM_THREADS=1 python benchmarks/check_simulation.py --vllm --engines 1 2

With --vllm nothing sleeps: Ray places vLLM engines with one thread each, and the learner trains. If there
are more of them than cores, they slow each other down, which the simulator does not model; nor does it know
that a step of an engine with few sequences is shorter.
"""

import argparse
import io
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

from one_ahead import MODES, NUM_SLOTS, config_of, use_fakes
from rich.console import Console
from simulate_cluster import Batch, Cluster, simulate

from verl_lite.engine import training as run
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.observe.metrics_log import read_metrics
from verl_lite.engine.testing.fakes import SlowedLearner
from verl_lite.engine.types import TrainingSample, UpdateStats
from verl_lite.plugins.config_file import validate
from verl_lite.plugins.records import read_records

Metrics = list[dict[str, float]]
Measured = tuple[Metrics, list[Batch]]


class SleepingLearner(SlowedLearner):
    """An update that only takes time."""

    def update(self, samples: Sequence[TrainingSample]) -> UpdateStats:
        time.sleep(self.update_s)
        return UpdateStats(metrics={})


def length(seed: int) -> int:
    """Four in five have 5 to 14 tokens, the others 4 times as many."""
    return (5 + seed % 10) * (4 if seed % 5 == 0 else 1)


def sleeping(mode: str, *, num_engines: int, steps: int, step_s: float) -> Measured:
    """A run whose engines and updates sleep."""
    config = config_of(MODES[mode], steps=steps, num_engines=num_engines)
    return measured(
        config,
        use_fakes(
            length, num_engines=num_engines, step_s=step_s, update_s=30 * step_s, learner=SleepingLearner
        ),
    )


def computing(mode: str, *, num_engines: int, steps: int) -> Measured:
    """A run whose engines sample the quickstart's model, not trained yet, and whose learner trains it."""
    described = config_of(MODES[mode], steps=steps, num_engines=num_engines).model_dump()
    described["model"] = {"tiny": {}}
    described["rollout"] |= {"sequences_in_flight": NUM_SLOTS, "vllm": {"kv_cache_gib": 0.2}}
    return measured(validate(TrainConfig, described, source="benchmark"), nullcontext())


def measured(config: TrainConfig, around: AbstractContextManager[None]) -> Measured:
    """(metrics by step, lengths by step and group) of a run."""
    with tempfile.TemporaryDirectory() as folder, around:
        run.train(config, run_dir=Path(folder) / "run", console=Console(file=io.StringIO()))
        batches: list[Batch] = []
        for step in range(1, config.steps + 1):
            groups: dict[str, list[int]] = defaultdict(list)
            for record in read_records(Path(folder) / "run" / "rollouts" / f"step_{step:06d}.parquet"):
                groups[record.rollout.group].append(len(record.rollout.completion_ids))
            batches.append(list(groups.values()))
        return read_metrics(Path(folder) / "run" / "metrics.jsonl"), batches


def in_the_middle(rows: Metrics, name: str) -> float:
    """Mean over the steps the simulator takes its mean over."""
    return fmean(row[name] for row in rows[len(rows) // 4 + 1 : len(rows) - len(rows) // 4])


def calibrated(rows: Metrics, batches: list[Batch]) -> Cluster:
    """One engine with the stage times of this sync run."""
    unit = Cluster(num_engines=1, num_slots=NUM_SLOTS, token_s=1.0, train_s=0.0)
    return replace(
        unit,
        token_s=in_the_middle(rows, "time/rollout_s") / simulate(unit, batches, mode="sync").step_s,
        train_s=median(row["time/update_s"] for row in rows),
        sync_s=median(row["time/sync_s"] for row in rows),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--step-s", type=float, default=0.03)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--vllm", action="store_true")
    options = parser.parse_args()

    def measure(mode: str, num_engines: int) -> Measured:
        if options.vllm:
            return computing(mode, num_engines=num_engines, steps=options.steps)
        return sleeping(mode, num_engines=num_engines, steps=options.steps, step_s=options.step_s)

    print(f"load {os.getloadavg()[0]:.1f}")
    one = calibrated(*measure("sync", 1))
    print(
        f"measured with 1 engine: {one.token_s * 1000:.1f} ms per token, update {one.train_s:.2f} s, "
        f"sync {one.sync_s:.3f} s\n\n| engines | mode | measured step s | predicted | ratio |"
    )
    print("|---|---|---|---|---|")
    for num_engines in options.engines:
        cluster = replace(one, num_engines=num_engines)
        for name, mode in MODES.items():
            rows, batches = measure(name, num_engines)
            lag = mode.get("max_lag", 1)
            predicted = simulate(cluster, batches, mode=mode["mode"], max_lag=lag).step_s
            actual = in_the_middle(rows, "time/step_s")
            print(
                f"| {num_engines} | {name} | {actual:.2f} | {predicted:.2f} | {predicted / actual:.2f} |",
                flush=True,
            )
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
