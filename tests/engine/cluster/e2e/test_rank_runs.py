"""Whole runs with two learner ranks: placed by Ray, and started by torchrun; killed, resumed, exported."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from verl_lite.engine import train
from verl_lite.engine.cluster import LearnerSpec, RayRanks, RayRuntime, reserve_placement_group
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.observe import read_metrics
from verl_lite.engine.tools import export_policy
from verl_lite.errors import ConfigError, RankLost
from verl_lite.plugins import validate

pytestmark = pytest.mark.slow
OPTIMIZER = {"learning_rate": 3e-3, "schedule": "constant"}


@pytest.fixture(scope="module")
def make(small_tree: dict[str, Any]) -> Callable[..., TrainConfig]:
    data = {
        **small_tree,
        "steps": 3,
        "learner": {"optimizer": OPTIMIZER},
        "checkpoints": {"every_steps": 1, "keep": 0},
        "cluster": {"call_timeout_s": 120},
    }
    return lambda **changes: validate(TrainConfig, {**data, **changes}, source="test")


def learner(num_ranks: int, parallel: str = "fsdp") -> dict[str, Any]:
    return {"optimizer": OPTIMIZER, "num_ranks": num_ranks, "parallel": parallel}


def curve(run_dir: Path) -> list[dict[str, float]]:
    names = ("step", "reward/mean", "learner/grad_norm", "loss/policy", "policy/entropy")
    return [{name: row[name] for name in names} for row in read_metrics(run_dir / "metrics.jsonl")]


@pytest.fixture(scope="module")
def alone(make: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one process."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train(make(), run_dir=run_dir, debug_inline=True)
    return run_dir


def assert_same_curve(run_dir: Path, alone: Path) -> None:
    for one, several in zip(curve(alone), curve(run_dir), strict=True):
        assert several == pytest.approx(one, rel=2e-3, abs=2e-4)
    rewards = [row["reward/mean"] for row in curve(alone)]
    assert len(set(rewards)) > 1


@pytest.mark.parametrize("parallel", ["fsdp", "replicated"])
def test_ranks_that_ray_places_train_as_one_process_does(
    make: Callable[..., TrainConfig], alone: Path, tmp_path: Path, parallel: str
) -> None:
    run_dir = tmp_path / "run"
    result = train(make(learner=learner(2, parallel)), run_dir=run_dir, debug_inline=True)
    assert not result.stopped
    assert_same_curve(run_dir, alone)
    policy = run_dir / "checkpoints" / "step_000003" / "policy"
    assert (policy / "model.safetensors").exists() == (parallel == "replicated")
    for folder, where in ((alone, tmp_path / "one"), (run_dir, tmp_path / "two")):
        export_policy(folder / "checkpoints" / "step_000003", where)
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("one", "two"))
    for (name, weight), other in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(other, weight, rtol=1e-3, atol=1e-3, msg=name)
    with pytest.raises(ConfigError, match="exists"):
        export_policy(run_dir / "checkpoints" / "step_000003", tmp_path / "two")


def test_ranks_and_engines_that_ray_places_train_as_one_process_does(
    make: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """Weights go from rank 0 through Ray's store to both engines, which sample what one in-process does."""
    rollout = {"num_prompts": 6, "num_samples": 4, "max_prompt_tokens": 16, "max_new_tokens": 16}
    rollout |= {"sampler": "vllm", "vllm": {"kv_cache_gib": 0.1}}
    cluster = {"call_timeout_s": 120, "start_timeout_s": 240}
    alone, run_dir = tmp_path / "alone", tmp_path / "run"
    train(make(rollout=rollout), run_dir=alone, debug_inline=True)
    placed = make(rollout={**rollout, "num_engines": 2}, learner=learner(2), cluster=cluster)
    train(placed, run_dir=run_dir, debug_inline=True)
    assert_same_curve(run_dir, alone)
    for row in read_metrics(run_dir / "metrics.jsonl"):
        assert row["canary/max_difference"] < 1e-4
        assert row["policy/kl_sampler_trainer"] < 1e-6


def test_a_run_is_resumed_with_more_and_with_fewer_ranks(
    make: Callable[..., TrainConfig], alone: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    train(make(steps=1), run_dir=run_dir, debug_inline=True)
    train(make(steps=2, learner=learner(2)), run_dir=run_dir, resume=True, debug_inline=True)
    train(make(steps=3), run_dir=run_dir, resume=True, debug_inline=True)
    assert_same_curve(run_dir, alone)


@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("accelerate", marks=pytest.mark.long)])
def test_ranks_that_torchrun_starts_train_as_one_process_does(
    make: Callable[..., TrainConfig], alone: Path, tmp_path: Path, launcher: str
) -> None:
    config, run_dir = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(make(learner=learner(2)).model_dump(mode="json")))
    bin_dir = Path(sys.executable).parent
    start = {
        "torchrun": [bin_dir / "torchrun", "--nproc-per-node", "2", "--master-port", "29613"],
        "accelerate": [
            *(bin_dir / "accelerate", "launch", "--cpu", "--num_processes", "2", "--num_machines", "1"),
            *("--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"),
            *("--main_process_port", "29614"),
        ],
    }[launcher]
    command = [*start, "-m", "verl_lite.cli", "train", config, "--run-dir", run_dir, "--debug-inline"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=280, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert_same_curve(run_dir, alone)
    assert len(list((run_dir / "checkpoints" / "step_000003" / "learner").iterdir())) == 2


@pytest.mark.parametrize(
    ("number", "timeout_s", "match"), [(signal.SIGKILL, 120, "died"), (signal.SIGSTOP, 30, "within 30 s")]
)
def test_a_lost_rank_is_named_and_nothing_waits_for_it(
    make: Callable[..., TrainConfig], alone: Path, tmp_path: Path, number: int, timeout_s: int, match: str
) -> None:
    config = make(learner=learner(2), cluster={"call_timeout_s": timeout_s})
    spec = LearnerSpec(config=config, model_path=str(alone / "model"), pad_token_id=0, run_dir=tmp_path)
    with RayRuntime(config.cluster, cpus=2), reserve_placement_group(2, on_gpu=False, timeout_s=60) as group:
        ranks = RayRanks(spec, config.cluster, group)
        assert len(ranks.call("token_logprobs", [1, 2, 3])) == 2
        os.kill(ranks.process_ids[1], number)
        started = time.monotonic()
        with pytest.raises(RankLost, match=match):
            ranks.call("token_logprobs", [1, 2, 3])
        assert time.monotonic() - started < 60  # of one that died, well before cluster.call_timeout_s
        ranks.close()
        while any(Path(f"/proc/{pid}/cmdline").is_file() for pid in ranks.process_ids):  # Ray goes on
            assert time.monotonic() - started < 60
            time.sleep(0.1)
