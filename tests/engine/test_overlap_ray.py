"""One step ahead and overlapped on two vLLM engines that Ray places: the shrunk quickstart learns."""

from pathlib import Path

import pytest

from verl_lite.engine.config import TrainConfig
from verl_lite.engine.metrics_log import read_metrics
from verl_lite.engine.run import train
from verl_lite.plugins.config_file import load_config
from verl_lite.plugins.records import read_records

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
SHRUNK = [
    "steps=10",
    "sft.steps=60",
    "data.held_out.num_rows=20",
    "rollout.num_engines=2",
    "rollout.num_prompts=16",
    "rollout.num_samples=8",
    "algorithm.importance.mode=truncate",
    "learner.optimizer.learning_rate=0.0005",
    "checkpoints.every_steps=5",
    "logging.trackers=[]",
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["one_ahead", "async"])
def test_the_quickstart_learns_while_it_samples(mode: str, tmp_path: Path) -> None:
    changes = [*SHRUNK, f"asynchrony.mode={mode}", "asynchrony.max_lag=2"]
    result = train(load_config(TrainConfig, QUICKSTART, changes), run_dir=tmp_path / "run")
    assert result.summary["steps"] == 10
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "reward/mean" in row]
    rewards = [row["reward/mean"] for row in rows]
    assert sum(rewards[-3:]) > sum(rewards[:3])
    for row in rows:
        assert row["canary/max_difference"] < 1e-3
        # the tokens' own probabilities came along: an older policy is near, not elsewhere
        assert row["policy/kl_sampler_trainer"] < 0.1
    versions = [
        set(record.rollout.token_versions or [record.rollout.policy_version])
        for record in read_records(tmp_path / "run" / "rollouts" / "step_000008.parquet")
    ]
    assert max(max(found) for found in versions) <= 7
    if mode == "one_ahead":
        assert {version for found in versions for version in found} == {6}
    else:
        assert max(row["rollout/staleness_mean"] for row in rows) > 0
