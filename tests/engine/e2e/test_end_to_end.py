"""The command itself with real vLLM: the quickstart's config made small, and a reward that must rise."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from verl_lite.engine.observe import read_metrics
from verl_lite.plugins.records import read_records

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart.yaml"
REWARD_FILE = '''
from verl_lite.plugins import reward

@reward("digits")
def digits(rollout):
    """The part of the completion that is digits."""
    text = rollout.completion
    return sum(c.isdigit() for c in text) / len(text) if text else 0.0
'''
SMALL = (
    "model.tiny={hidden_size: 64, num_layers: 2, num_heads: 2, num_kv_heads: 1, intermediate_size: 128, "
    "max_context_tokens: 80}",
    "rollout.max_new_tokens=32",
    "rollout.vllm.kv_cache_gib=0.25",
)


@pytest.fixture
def small_quickstart(command: Callable[..., str]) -> Callable[..., str]:
    """`small_quickstart(folder, *overrides)` trains it in `folder`; returns what was printed."""

    def train(folder: Path, *overrides: str) -> str:
        (folder / "digits.py").write_text(REWARD_FILE)
        return command(folder, "train", str(QUICKSTART), *SMALL, *overrides)

    return train


def test_the_quickstart_made_small_learns_with_vllm(
    tmp_path: Path, small_quickstart: Callable[..., str]
) -> None:
    printed = small_quickstart(
        tmp_path,
        "steps=12",
        "sft.steps=2",
        "rewards={digits: {use: './digits.py:digits', weight: 1.0}, format: {use: format, weight: 0.1}}",
        "rollout.num_prompts=8",
        "learner.optimizer.learning_rate=3.0e-3",
        "learner.optimizer.schedule=constant",
        "data.train.num_rows=100",
        "data.held_out.num_rows=10",
        "evaluation.right_at=0.5",
        "--run-dir=run",
    )
    assert "  - '<|user|>" in printed
    assert printed.count("\nstep ") == 12
    for part in ("held out, greedy", "before", "after", "accuracy"):
        assert part in printed

    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    rewards = [row["reward/digits/mean"] for row in rows]
    assert sum(rewards[-3:]) > 1.3 * sum(rewards[:3])
    assert all(row["canary/max_difference"] < 1e-4 for row in rows)
    assert all(row["policy/kl_sampler_trainer"] < 1e-6 for row in rows)
    records = list(read_records(tmp_path / "run" / "rollouts" / "step_000012.parquet"))
    assert len(records) == 64
    assert {record.rollout.policy_version for record in records} == {11}
    assert all(len(record.rollout.logprobs) == len(record.rollout.completion_ids) for record in records)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["metrics"]) >= {"evaluation/accuracy"}
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*"))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_ppo_quickstart_learns_its_task(tmp_path: Path, command: Callable[..., str]) -> None:
    command(tmp_path, "train", str(QUICKSTART.with_name("quickstart_ppo.yaml")), "steps=24", "--run-dir=run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    accuracy = summary["metrics"]["evaluation/accuracy"]
    assert accuracy["before"] <= 0.65
    assert accuracy["after"] >= accuracy["before"] + 0.2
    name = "critic/explained_variance"
    explained = [row[name] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if name in row]
    assert len(explained) == 24
    assert max(explained[2:8]) > 0.2  # of the policy that SFT left, the prompt tells much


@pytest.mark.slow
def test_the_example_with_a_tool_made_small_trains_what_vllm_sampled(
    tmp_path: Path, command: Callable[..., str]
) -> None:
    """Token-exact with real vLLM: behind the tool's answers the learner has the sampler's probabilities."""
    tools = QUICKSTART.with_name("tools.yaml")
    changes = ["sft.steps=60", "steps=3", "rollout.num_prompts=4", "data.held_out.num_rows=8"]
    command(tmp_path, "train", str(tools), *changes, "rollout.vllm.kv_cache_gib=0.25", "--run-dir=run")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "turns/mean" in row]
    assert len(rows) == 3
    assert all(row["policy/kl_sampler_trainer"] < 1e-6 for row in rows)
    records = list(read_records(tmp_path / "run" / "rollouts" / "step_000003.parquet"))
    assert len(records) == 32
    assert any(len(record.rollout.turns) > 1 for record in records)
    for record in records:
        rollout = record.rollout
        pairs = zip(rollout.logprobs, rollout.sampled_mask, strict=True)
        assert all(value == 0.0 for value, is_sampled in pairs if not is_sampled)


@pytest.mark.long
def test_the_example_on_reasoning_gym_made_small_learns_and_scores_again_offline(
    tmp_path: Path, command: Callable[..., str]
) -> None:
    short = "task_options: {min_word_len: 3, max_word_len: 3}"
    task = "task: reasoning_gym/spell_backward"
    command(
        tmp_path,
        "train",
        str(QUICKSTART.with_name("reasoning_gym.yaml")),
        f"data.train={{{task}, {short}, split: train, num_rows: 200}}",
        f"data.held_out={{{task}, {short}, split: held_out, num_rows: 20}}",
        "sft.steps=150",
        "steps=3",
        "rollout.vllm.kv_cache_gib=0.25",
        "--run-dir=run",
        is_silent=False,
    )
    run = tmp_path / "run"
    losses = [row["sft/loss"] for row in read_metrics(run / "sft.jsonl")]
    assert losses[-1] < 0.6 * losses[0]
    scored = command(
        tmp_path, "score", str(run / "rollouts" / "step_000003.parquet"), "-c", "run/config.yaml", "--json"
    )
    offline = json.loads(scored)["components"]
    online = read_metrics(run / "metrics.jsonl")[-1]
    for name in ("correct", "letters"):
        assert offline[name]["outcomes"] == {"ok": 512}
        assert offline[name]["mean"] == pytest.approx(online[f"reward/{name}/mean"], abs=1e-12)
    assert offline["letters"]["mean"] > 0.1  # a random model has next to none in their places
