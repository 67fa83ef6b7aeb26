"""A run that is killed and resumed is, bit by bit, the run that never stopped: GRPO and PPO.

Compared are the last checkpoint (weights, both optimisers, controllers, random states, data position),
every metric that no clock decides, and every rollout record. SFT, DPO and reward models have theirs in
test_loop_checkpoints.py.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file

from verl_lite.engine import train
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.observe import MetricsLog, read_metrics
from verl_lite.plugins import validate
from verl_lite.plugins.records import read_records

STEPS = 5
CLOCK = ("time/", "latency", "tokens_per_s")
ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": {
        "algorithm": {"mini_batches": 2, "kl": {"coefficient": 0.01, "target": 0.5, "horizon_samples": 100}},
        "rollout": {"num_prompts": 6, "num_samples": 4},
    },
    "ppo": {
        "algorithm": {
            "advantage": "gae",
            "whiten": True,
            "mini_batches": 2,
            "kl": {"coefficient": 0.01, "placement": "reward"},
            "critic": {"learning_rate": 1e-3, "warmup_steps": 1},
        },
        "rollout": {"num_prompts": 16, "num_samples": 1},
    },
}


class Killed(BaseException):
    """Nothing in the engine expects it: the process might as well be gone."""


@pytest.fixture
def make_tree(small_run: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """The config; the schedule, the epoch's end and the KL controller all matter within its few steps."""

    def make(kind: str, *, sampler: str) -> dict[str, Any]:
        chosen = ALGORITHMS[kind]
        vllm = {"vllm": {"kv_cache_gib": 0.25}}
        return {
            **small_run,
            "name": kind,
            "steps": STEPS,
            "sft": {"steps": 3, "batch_rows": 4, "optimizer": {"learning_rate": 1e-3}},
            "algorithm": chosen["algorithm"],
            "learner": {"optimizer": {"learning_rate": 3e-3, "warmup_steps": 2, "schedule": "cosine"}},
            "rollout": {**small_run["rollout"], **chosen["rollout"], "sampler": sampler, **vllm},
            "checkpoints": {"every_steps": 2, "keep": 0},
        }

    return make


def assert_same_run(whole: Path, cut: Path) -> None:
    last = Path("checkpoints") / f"step_{STEPS:06d}"
    assert_same_tree(
        *(load_file(run / last / "policy" / "model.safetensors") for run in (whole, cut)), "policy"
    )
    for name in ("learner.pt", "rng.pt"):
        assert_same_tree(*(torch.load(run / last / name, weights_only=True) for run in (whole, cut)), name)
    trainers = [json.loads((run / last / "trainer.json").read_text()) for run in (whole, cut)]
    metrics = [read_metrics(run / "metrics.jsonl") for run in (whole, cut)]
    for one in trainers:
        one["metrics"] = timeless(one["metrics"])
    assert trainers[0] == trainers[1]
    assert [row["step"] for row in metrics[1]] == list(range(1, STEPS + 1))
    assert [timeless(row) for row in metrics[0]] == [timeless(row) for row in metrics[1]]
    for step in range(1, STEPS + 1):
        records = [
            [
                (r.rollout.id, r.rollout.completion_ids, r.rollout.logprobs, r.reward, r.advantage)
                for r in read_records(run / "rollouts" / f"step_{step:06d}.parquet")
            ]
            for run in (whole, cut)
        ]
        assert records[0] == records[1]


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not any(word in name for word in CLOCK)}


def assert_same_tree(left: Any, right: Any, where: str) -> None:
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key, value in left.items():
            assert_same_tree(value, right[key], f"{where}/{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for at, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same_tree(one, other, f"{where}/{at}")
    else:
        assert left == right, where


def assert_it_learned(run: Path) -> None:
    """There was something to lose: the weights moved after the checkpoint the run was resumed from."""
    files = [run / "checkpoints" / f"step_{step:06d}" / "policy" / "model.safetensors" for step in (2, STEPS)]
    before, after = map(load_file, files)
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", sorted(ALGORITHMS))
def test_killed_and_resumed_is_the_run_that_never_stopped(
    kind: str, make_tree: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = validate(TrainConfig, make_tree(kind, sampler="transformers"), source="test")
    quiet = Console(file=io.StringIO())
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, run_dir=whole, debug_inline=True, console=quiet)
    write = MetricsLog.log

    def killed_in_step_4(self: MetricsLog, metrics: Any, *, step: int) -> None:
        if step == 4 and "reward/mean" in metrics:
            raise Killed
        write(self, metrics, step=step)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "log", killed_in_step_4)
        with pytest.raises(Killed):
            train(config, run_dir=cut, debug_inline=True, console=quiet)
    assert (cut / "rollouts" / "step_000004.parquet").is_file()  # written before the line that is missing
    train(config, run_dir=cut, resume=True, debug_inline=True, console=quiet)
    assert_same_run(whole, cut)
    assert_it_learned(whole)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `verl-lite train` in a process of its own; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(config: Path, run_dir: Path, *options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from verl_lite.cli import main; main()", "train", str(config)]
        process = subprocess.Popen(
            [*command, "--run-dir", str(run_dir), *options],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **{k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"},
                "OMP_WAIT_POLICY": "PASSIVE",
            },
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", [pytest.param("grpo", marks=pytest.mark.long), "ppo"])
def test_with_vllm_in_the_loop_after_a_real_kill(
    kind: str, make_tree: Callable[..., Any], start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    # without `deterministic`, several threads change the last bits of sums from run to run
    file.write_text(yaml.safe_dump({**make_tree(kind, sampler="vllm"), "deterministic": True}))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    first = start(file, whole)
    first.communicate()
    assert first.returncode == 0
    process = start(file, cut)
    metrics = cut / "metrics.jsonl"
    while not metrics.exists() or len(read_metrics(metrics)) < 3:
        assert process.poll() is None
        time.sleep(0.002)
    # vLLM lives in this process: this is what the kernel's out-of-memory killer does to it
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = start(file, cut, "--resume")
    printed, _ = resumed.communicate()
    assert resumed.returncode == 0
    assert f"process {process.pid} on " in printed
    assert "was killed while it trained here; if nobody did that, the kernel was out of memory" in printed
    assert "step_000002 after 2 steps" in printed
    assert_same_run(whole, cut)
    assert_it_learned(whole)
