"""Sampling while training: what each mode guarantees, on a very small model and on engines that are faked."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from verl_lite.engine.config import TrainConfig
from verl_lite.engine.metrics_log import read_metrics
from verl_lite.engine.run import train
from verl_lite.plugins.config_file import validate
from verl_lite.plugins.records import read_records

REWARD_FILE = '''
from verl_lite.plugins import reward

@reward("digits")
def digits(rollout):
    """The part of the completion that is digits."""
    text = rollout.completion
    return sum(c.isdigit() for c in text) / len(text) if text else 0.0
'''
SMALL = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 128}


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., TrainConfig]:
    rewards = tmp_path / "my_rewards.py"
    rewards.write_text(REWARD_FILE)

    def make(**changes: Any) -> TrainConfig:
        data: dict[str, Any] = {
            "name": "small",
            "steps": 4,
            "model": {"tiny": {**SMALL, "max_context_tokens": 64}},
            "data": {"train": {"task": "arithmetic", "num_rows": 20}},
            "rewards": {"digits": {"use": f"{rewards}:digits"}},
            "rollout": {
                "sampler": "transformers",
                "num_prompts": 6,
                "num_samples": 4,
                "max_prompt_tokens": 16,
                "max_new_tokens": 16,
            },
            "algorithm": {"importance": {"mode": "truncate"}},
            "learner": {"optimizer": {"learning_rate": 3e-3}},
            "asynchrony": {"mode": "one_ahead"},
            "checkpoints": {"every_steps": 2, "keep": 0},
            "logging": {"trackers": []},
        }
        return validate(TrainConfig, {**data, **changes}, source="test")

    return make


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step:06d}" / "policy" / "model.safetensors")


def versions(run: Path, steps: int) -> list[set[int]]:
    """The policy versions that sampled each step's rollouts."""
    return [
        {
            record.rollout.policy_version
            for record in read_records(run / "rollouts" / f"step_{step:06d}.parquet")
        }
        for step in range(1, steps + 1)
    ]


def same_numbers(one: Path, other: Path) -> None:
    """Every metric that is no time is the same in both runs."""
    rows = [read_metrics(run / "metrics.jsonl") for run in (one, other)]
    timed = ("time/", "rollout/tokens_per_s", "learner/tokens_per_s")
    for mine, yours in zip(*rows, strict=True):
        names = [name for name in mine if not name.startswith(timed) and not name.endswith("_s")]
        assert {name: mine[name] for name in names} == {name: yours[name] for name in names}
        assert len(names) > 20


def test_one_ahead_samples_by_the_version_before_and_resumes_bitwise(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config()
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, run_dir=whole, debug_inline=True)
    assert versions(whole, 4) == [{0}, {0}, {1}, {2}]
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["rollout/staleness_max"] for row in rows] == [0, 1, 1, 1]
    assert all(row["time/wait_rollouts_s"] >= 0 and row["time/wait_training_s"] >= 0 for row in rows)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step_000004")
    pending = list(read_records(cut / "checkpoints" / "step_000002" / "rollouts.parquet"))
    assert len(pending) == 24
    train(config, run_dir=cut, resume=True, debug_inline=True)
    expected, got = weights(whole, 4), weights(cut, 4)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    same_numbers(whole, cut)
    lines = [json.loads(line) for line in (cut / "timeline.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"rollout", "reward", "wait_rollouts", "update", "sync"}
