"""One step ahead and overlapped on two vLLM engines that Ray places: whole runs, and nothing left of them."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine import train
from verl_lite.engine.cluster import descendants
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.observe import read_metrics
from verl_lite.plugins import validate
from verl_lite.plugins.records import read_records

pytestmark = pytest.mark.slow
STEPS, MAX_LAG = 8, 2
GONE_S = 60.0


@pytest.fixture
def data(small_run: dict[str, Any]) -> dict[str, Any]:
    pytest.importorskip("ray")
    return {
        **small_run,
        "steps": STEPS,
        "data": {"train": {"task": "arithmetic", "num_rows": 40}},
        "rollout": {
            "num_engines": 2,
            "num_prompts": 8,
            "num_samples": 4,
            "max_prompt_tokens": 16,
            "max_new_tokens": 44,
            "vllm": {"kv_cache_gib": 0.1},
        },
        "algorithm": {"importance": {"mode": "truncate"}},
        "learner": {"optimizer": {"learning_rate": 1e-3, "schedule": "constant"}},
        "checkpoints": {"every_steps": 3},
        "cluster": {"start_timeout_s": 280},
    }


@pytest.mark.parametrize("mode", [pytest.param("one_ahead", marks=pytest.mark.long), "async"])
def test_a_run_on_two_engines_samples_while_it_trains(
    data: dict[str, Any], mode: str, tmp_path: Path
) -> None:
    before = descendants(os.getpid())
    asynchrony = {"mode": mode, "max_lag": MAX_LAG if mode == "async" else 1}
    config = validate(TrainConfig, {**data, "asynchrony": asynchrony}, source="test")
    result = train(config, run_dir=tmp_path / "run", debug_inline=True)
    assert result.summary["steps"] == STEPS
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for row in rows:
        assert row["canary/max_difference"] < 1e-4
        # the tokens' own probabilities came along: an older policy is near, not elsewhere
        assert row["policy/kl_sampler_trainer"] < 0.1
    found = [versions(tmp_path / "run", step) for step in range(1, STEPS + 1)]
    if mode == "one_ahead":
        assert found == [{0}, *({step} for step in range(STEPS - 1))]
    else:
        # a batch may hold tokens of the version that trains on it, and older ones; never newer ones
        assert all(max(several) <= at for at, several in enumerate(found))
        assert max(at - min(several) for at, several in enumerate(found)) >= 1
        assert any(row["rollout/staleness_mean"] > 0 for row in rows)
    stages = (tmp_path / "run" / "timeline.jsonl").read_text()
    assert '"rollout"' in stages
    assert '"update"' in stages
    assert not left_after(before)


def versions(run_dir: Path, step: int) -> set[int]:
    """The versions that sampled the tokens of a step; every token has one."""
    found: set[int] = set()
    for record in read_records(run_dir / "rollouts" / f"step_{step:06d}.parquet"):
        rollout = record.rollout
        assert len(rollout.token_versions) in (0, len(rollout.completion_ids))
        found |= set(rollout.token_versions or [rollout.policy_version])
    return found


def left_after(before: set[tuple[int, str]]) -> set[tuple[int, str]]:
    deadline = time.monotonic() + GONE_S
    while (left := descendants(os.getpid()) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left
