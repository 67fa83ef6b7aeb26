"""The modes one_ahead and async against sync, where generating and training take the same time.

The stages sleep (verl_lite.engine.testing): engines for each token, updates until they have taken as long as
a batch of equal lengths does. Everything else is a real run: trainer, scorer, learner (a very small model),
records. In the long tail one completion in ten is ten times longer than the others, with the same number of
tokens in total.

OMP_NUM_THREADS=1 python benchmarks/one_ahead.py
"""

import argparse
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import fmean, median
from typing import Any
from unittest.mock import patch

from rich.console import Console

from verl_lite.engine import build, training
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.observe import read_metrics
from verl_lite.engine.testing import FakeSampler, SlowedLearner
from verl_lite.plugins import validate

NUM_TOKENS = 38
NUM_ENGINES = 2
NUM_SLOTS = 20
SMALL = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 128}
MODES = {
    "sync": {"mode": "sync"},
    "one_ahead": {"mode": "one_ahead"},
    "async, max_lag 1": {"mode": "async", "max_lag": 1},
    "async, max_lag 3": {"mode": "async", "max_lag": 3},
}


def equal(seed: int) -> int:
    return NUM_TOKENS


def long_tail(seed: int) -> int:
    """9 of 10 completions have 20 tokens, the tenth 200: NUM_TOKENS on average."""
    return 200 if seed % 10 == 0 else 20


def config_of(asynchrony: dict[str, Any], *, steps: int) -> TrainConfig:
    data = {
        "name": "fakes",
        "steps": steps,
        "model": {"tiny": {**SMALL, "max_context_tokens": 256}},
        "data": {"train": {"task": "arithmetic", "num_rows": 200}},
        "rewards": {"length": {"use": "length", "options": {"target": 32}}},
        "rollout": {
            "sampler": "vllm",
            "num_engines": NUM_ENGINES,
            "placement": "disaggregated",
            "num_prompts": 10,
            "num_samples": 4,
            "max_prompt_tokens": 32,
            "max_new_tokens": 200,
        },
        "algorithm": {"importance": {"mode": "truncate"}},
        "asynchrony": asynchrony,
        "checkpoints": {"every_steps": 0},
        "logging": {"trackers": []},
    }
    return validate(TrainConfig, data, source="benchmark")


@contextmanager
def use_fakes(length: Callable[[int], int], *, step_s: float) -> Iterator[None]:
    """Inside, an engine takes `step_s` per decoding step, and an update as long as NUM_TOKENS of them."""

    def make_sampler(prepared: Any, path: str, session: Any) -> FakeSampler:
        return FakeSampler(
            prepared.tokenizer, length=length, num_engines=NUM_ENGINES, num_slots=NUM_SLOTS, step_s=step_s
        )

    with (
        patch.object(training, "make_sampler", make_sampler),
        patch.object(build, "Learner", SlowedLearner),
        patch.object(training, "open_cluster", lambda *_: nullcontext()),
        patch.object(SlowedLearner, "update_s", NUM_TOKENS * step_s),
    ):
        yield


def measure(config: TrainConfig, length: Callable[[int], int], *, step_s: float) -> list[dict[str, float]]:
    """The metrics of every step."""
    with tempfile.TemporaryDirectory() as folder, use_fakes(length, step_s=step_s):
        training.train(config, run_dir=Path(folder) / "run", console=Console(file=io.StringIO()))
        return read_metrics(Path(folder) / "run" / "metrics.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument(
        "--step-s", type=float, default=0.025, help="seconds per token of an engine's sequences"
    )
    options = parser.parse_args()
    print(
        f"generating and training {NUM_TOKENS * options.step_s:.2f} s each; load {os.getloadavg()[0]:.1f}\n"
    )
    print("| lengths | mode | step s | training waits s | engines wait s | staleness, tokens | x sync |")
    print("|---|---|---|---|---|---|---|")
    for name, length in (("equal", equal), ("long tail", long_tail)):
        base = 0.0
        for mode, asynchrony in MODES.items():
            rows = measure(config_of(asynchrony, steps=options.steps), length, step_s=options.step_s)
            rows = rows[3:-3]  # the first and last steps have nothing to overlap with
            step_s = fmean(row["time/step_s"] for row in rows)
            base = base or step_s
            training = [row.get("time/wait_rollouts_s", row.get("time/rollout_s", 0.0)) for row in rows]
            engines = [row.get("time/wait_training_s", row["time/update_s"]) for row in rows]
            stale = fmean(row["rollout/staleness_mean"] for row in rows)
            print(
                f"| {name} | {mode} | {step_s:.2f} | {median(training):.2f} | {median(engines):.2f} | "
                f"{stale:.2f} | {base / step_s:.2f} |",
                flush=True,
            )
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
