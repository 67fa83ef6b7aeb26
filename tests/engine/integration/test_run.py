"""Whole runs on a very small model: what they leave behind, and that stopping changes nothing."""

import errno
import io
import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from verl_lite.engine import train, train_only_sft, trainer
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.evals import evaluate_model, training_config
from verl_lite.engine.learner import checkpoint as learner_files
from verl_lite.engine.observe import read_metrics
from verl_lite.engine.rollout.batch_maker import BatchMaker
from verl_lite.errors import CheckpointError, ConfigError, DataError, TrainingError
from verl_lite.plugins import validate
from verl_lite.plugins.records import read_records

NEVER = """
from verl_lite.plugins import reward

@reward("never")
def never(rollout):
    return None if rollout.sample_index == 0 else 0.0
"""


@pytest.fixture
def make_config(small_run: dict[str, Any]) -> Callable[..., TrainConfig]:
    small_run["data"]["held_out"] = {"task": "arithmetic", "split": "held_out", "num_rows": 6}
    small_run["rollout"]["max_new_tokens"] = 24
    small_run |= {"evaluation": {"right_at": 0.5}, "checkpoints": {"every_steps": 2, "keep": 0}}
    return lambda **changes: validate(TrainConfig, {**small_run, **changes}, source="test")


def test_a_run_leaves_everything_behind_and_the_reward_rises(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(steps=16, sft={"steps": 3, "batch_rows": 8, "optimizer": {"learning_rate": 1e-3}})
    run_dir = tmp_path / "run"
    result = train(config, run_dir=run_dir, debug_inline=True)
    assert not result.stopped
    rows = read_metrics(run_dir / "metrics.jsonl")
    rewards = [row["reward/mean"] for row in rows]
    assert [row["step"] for row in rows] == list(range(1, 17))
    assert sum(rewards[-3:]) > 1.3 * sum(rewards[:3])
    for row in rows:
        assert row["canary/max_difference"] < 1e-4
        assert row["policy/kl_sampler_trainer"] < 1e-6
        assert row["time/step_s"] >= row["time/rollout_s"] > 0
    records = list(read_records(run_dir / "rollouts" / "step_000003.parquet"))
    assert len(records) == 24
    for group in (records[start : start + 4] for start in range(0, 24, 4)):
        assert len({record.rollout.group for record in group}) == 1
        assert sum(record.advantage for record in group) == pytest.approx(0, abs=1e-4)
    assert records[0].rollout.policy_version == 2
    summary = json.loads((run_dir / "summary.json").read_text())
    measured = summary["metrics"]["evaluation/reward_mean"]
    assert measured["after"] > measured["before"]
    assert summary["steps"] == 16
    environment = json.loads((run_dir / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir())[-1] == "step_000016"
    checkpoint = str(run_dir / "checkpoints" / "step_000016" / "policy")
    again = evaluate_model(training_config(config), checkpoint, debug_inline=True)
    (reward,) = (m for m in again.datasets["held_out"].measures if m.name == "greedy reward")
    assert reward.value == pytest.approx(measured["after"], abs=1e-6)


def test_a_resumed_run_is_the_run_that_was_never_stopped(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(algorithm={"kl": {"coefficient": 0.01}})  # the reference must come back too
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, run_dir=whole, debug_inline=True)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step_000004")
    (cut / "summary.json").unlink()
    train(config, run_dir=cut, resume=True, debug_inline=True)
    expected, got = (
        load_file(run / "checkpoints" / "step_000004" / "policy" / "model.safetensors")
        for run in (whole, cut)
    )
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    for name in ("reward/mean", "learner/grad_norm", "policy/kl_reference", "learner/learning_rate"):
        values = [[row[name] for row in read_metrics(run / "metrics.jsonl")] for run in (whole, cut)]
        assert values[0] == values[1]
        assert len(values[0]) == 4
    summaries = [json.loads((run / "summary.json").read_text())["metrics"] for run in (whole, cut)]
    assert summaries[0] == summaries[1]


def test_resume_refuses_another_config_and_an_empty_folder(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(steps=1, checkpoints={"every_steps": 0})
    run_dir = tmp_path / "run"
    train(config, run_dir=run_dir, debug_inline=True)
    changed = make_config(seed=1, rollout={**config.rollout.model_dump(), "temperature": 0.5})
    with pytest.raises(ConfigError, match="seed, rollout differ from what"):
        train(changed, run_dir=run_dir, resume=True)
    with pytest.raises(ConfigError, match="holds no run; name its folder with --run-dir"):
        train(config, run_dir=tmp_path / "nothing", resume=True)
    shutil.rmtree(run_dir / "checkpoints")  # of a run that has ended
    with pytest.raises(ConfigError, match="has no intact checkpoint left"):
        train(config, run_dir=run_dir, resume=True)
    with pytest.raises(ConfigError, match="already holds another run"):
        train(config, run_dir=run_dir)


def test_a_run_that_was_killed_before_its_first_checkpoint_is_resumed_from_its_beginning(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """As a cluster's scheduler does it: the same command with --resume, whenever the run was begun before."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    config = make_config(steps=4, checkpoints={"every_steps": 1})
    train(config, run_dir=whole, debug_inline=True)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints")
    (cut / "summary.json").unlink()
    with pytest.raises(ConfigError, match="has no intact checkpoint left"):  # there were four
        train(config, run_dir=cut, resume=True, debug_inline=True)
    lines = (cut / "metrics.jsonl").read_text().splitlines(keepends=True)
    (cut / "metrics.jsonl").write_text("".join(lines[:2]))  # killed while the first was written
    train(config, run_dir=cut, resume=True, debug_inline=True)
    rows = [read_metrics(run / "metrics.jsonl") for run in (whole, cut)]
    assert [row["step"] for row in rows[1]] == [1, 2, 3, 4]
    assert [row["loss/policy"] for row in rows[1]] == [row["loss/policy"] for row in rows[0]]


def test_more_steps_can_be_added_to_a_finished_run(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    schedule = {"optimizer": {"learning_rate": 3e-3, "schedule": "constant"}}
    train(make_config(steps=2, learner=schedule), run_dir=run_dir, debug_inline=True)
    result = train(make_config(steps=3, learner=schedule), run_dir=run_dir, resume=True, debug_inline=True)
    assert result.summary["steps"] == 3
    assert [row["step"] for row in read_metrics(run_dir / "metrics.jsonl")] == [1, 2, 3]


def test_a_sync_that_does_not_arrive_stops_the_run(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verl_lite.engine.rollout import TransformersSampler

    replace, calls = TransformersSampler._replace_weights, []

    def skip_the_second(self: TransformersSampler, source: Any) -> None:
        calls.append(1)
        if len(calls) != 3:  # the first is the start, so this is the second step's
            replace(self, source)

    monkeypatch.setattr(TransformersSampler, "_replace_weights", skip_the_second)
    with pytest.raises(TrainingError, match="the weights of version 2 did not reach the sampler"):
        train(make_config(), run_dir=tmp_path / "run", debug_inline=True)


def test_dropped_samples_are_recorded_and_not_trained_on(
    make_config: Callable[..., TrainConfig], small_run: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "never.py"
    file.write_text(NEVER)
    never = {"use": f"{file}:never", "on_abstain": "drop"}
    config = make_config(steps=1, rewards={**small_run["rewards"], "never": never})
    train(config, run_dir=tmp_path / "run", debug_inline=True)
    records = list(read_records(tmp_path / "run" / "rollouts" / "step_000001.parquet"))
    dropped = [record for record in records if record.reward is None]
    assert [record.rollout.sample_index for record in dropped] == [0] * 6
    assert all(record.advantage is None and record.dropped_because for record in dropped)
    kept = [record for record in records if record.reward is not None]
    assert len(kept) == 18
    assert all(record.advantage is not None for record in kept)


def test_stopping_during_a_rollout_forgets_its_prompts(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_batch = BatchMaker.__call__

    def stop_in_the_third(self: BatchMaker, step: int, clock: Any, *, check: Any) -> Any:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return make_batch(self, step, clock, check=check)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(make_config(), run_dir=whole, debug_inline=True)
    with monkeypatch.context() as patch:
        patch.setattr(BatchMaker, "__call__", stop_in_the_third)
        result = train(make_config(checkpoints={"every_steps": 0}), run_dir=cut, debug_inline=True)
    assert result.stopped
    assert [path.name for path in (cut / "checkpoints").iterdir()] == ["step_000002"]
    train(make_config(), run_dir=cut, resume=True, debug_inline=True)
    expected, got = (
        load_file(run / "checkpoints" / "step_000004" / "policy" / "model.safetensors")
        for run in (whole, cut)
    )
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_local_folder_trains_on_gsm8k_shaped_rows(
    make_config: Callable[..., TrainConfig], small_model: Path, tmp_path: Path
) -> None:
    rows = [
        {"question": f"Tom has {i} apples and buys {i + 2}?", "answer": f"...\n#### {2 * i + 2}"}
        for i in range(8)
    ]
    path = tmp_path / "gsm8k.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"path": str(path), "reference": "answer", "reference_after": "####"}
    config = make_config(
        steps=2,
        model={"path": str(small_model)},
        data={"train": data, "held_out": data},
        sft={"steps": 2, "batch_rows": 4},
        rollout={
            "sampler": "transformers",
            "num_prompts": 4,
            "num_samples": 2,
            "max_prompt_tokens": 64,
            "max_new_tokens": 16,
        },
    )
    train(config, run_dir=tmp_path / "run", debug_inline=True)
    records = list(read_records(tmp_path / "run" / "rollouts" / "step_000002.parquet"))
    assert {record.rollout.reference for record in records} <= {str(2 * i + 2) for i in range(8)}
    start = load_file(tmp_path / "run" / "model" / "model.safetensors")
    given = load_file(small_model / "model.safetensors")
    assert not torch.equal(start["model.norm.weight"], given["model.norm.weight"])  # SFT's, in the run


def test_a_skipped_update_is_said_with_the_file_of_its_batch(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate, calls = trainer.estimate_advantages, []

    def nan_at_the_second(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        samples = estimate(*arguments, **options)
        if len(calls) != 2:
            return samples
        return [replace(sample, advantages_T=[math.nan] * len(sample.advantages_T)) for sample in samples]

    monkeypatch.setattr(trainer, "estimate_advantages", nan_at_the_second)
    text, run_dir = io.StringIO(), tmp_path / "run"
    config = make_config(checkpoints={"every_steps": 3}, logging={"trackers": []})
    train(config, run_dir=run_dir, debug_inline=True, console=Console(file=text, width=200))
    kept = run_dir / "bad_batches" / "bad_batch_001.jsonl"
    assert kept.is_file()
    said = [line for line in text.getvalue().splitlines() if " skipped " in line]
    skipped = "step 2: updates skipped because of nan or inf in their gradients: 1; the last batch is kept in"
    assert [line for line in said if not line.startswith("warning bad_steps")] == [f"{skipped} {kept}"]
    assert len(said) == 2
    assert [row["warning/bad_steps"] for row in read_metrics(run_dir / "metrics.jsonl")] == [0, 1, 1, 1]


def test_a_critic_that_is_not_there_is_refused_before_the_warm_up(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    algorithm = {"advantage": "gae", "critic": {"model": "/nope"}}
    with pytest.raises(DataError, match=r"critic\.model='/nope': there is no folder /nope"):
        train(make_config(algorithm=algorithm, sft={"steps": 3}), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sft_alone_and_its_refusal(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sft\.steps=0"):
        train_only_sft(make_config(), run_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    result = train_only_sft(make_config(sft={"steps": 2, "batch_rows": 4}), run_dir=tmp_path / "run")
    assert (result.run_dir / "model" / "model.safetensors").is_file()


def test_a_killed_run_goes_on_from_the_newest_whole_checkpoint(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(checkpoints={"every_steps": 1, "keep": 0}, logging={"trackers": []})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, run_dir=whole, debug_inline=True)
    shutil.copytree(whole, cut)
    (cut / "checkpoints" / "step_000004" / "learner.pt").write_bytes(b"half")
    (cut / "checkpoints" / "step_000003" / "manifest.json").unlink()
    (cut / "checkpoints" / ".step_000005.part").mkdir()
    (cut / "rollouts" / ".step_000005.parquet.1.part").write_bytes(b"PAR1")
    with (cut / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "rew')
    text = io.StringIO()
    train(config, run_dir=cut, resume=True, debug_inline=True, console=Console(file=text, width=200))
    said = text.getvalue()
    assert "step_000004: learner.pt has 4 bytes, manifest.json says" in said
    assert "step_000003: manifest.json is missing; renamed to damaged_step_000003" in said
    assert "checkpoints/step_000002 after 2 steps" in said
    names = sorted(path.name for path in (cut / "checkpoints").iterdir())
    assert names == ["damaged_step_000003", "damaged_step_000004", *(f"step_00000{n}" for n in range(1, 5))]
    assert [row["step"] for row in read_metrics(cut / "metrics.jsonl")] == [1, 2, 3, 4]
    assert [p.name for p in sorted((cut / "rollouts").iterdir())] == [
        f"step_00000{n}.parquet" for n in range(1, 5)
    ]
    for step in (3, 4):
        rows = [list(read_records(run / "rollouts" / f"step_00000{step}.parquet")) for run in (whole, cut)]
        assert [r.rollout.completion_ids for r in rows[0]] == [r.rollout.completion_ids for r in rows[1]]


def test_a_disk_without_room_stops_the_run_with_one_message(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run_dir = make_config(checkpoints={"every_steps": 1}, logging={"trackers": []}), tmp_path / "run"
    write, calls = learner_files.save_policy, []

    def no_room_at_the_third(*arguments: Any, **options: Any) -> None:
        calls.append(1)
        write(*arguments, **options)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(learner_files, "save_policy", no_room_at_the_third)
    with pytest.raises(CheckpointError, match=r"step_000003: .*No space left on device.* with --resume"):
        train(config, run_dir=run_dir, debug_inline=True)
    names = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert names == ["step_000001", "step_000002"]
    train(config, run_dir=run_dir, resume=True, debug_inline=True)
    assert [row["step"] for row in read_metrics(run_dir / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_deterministic_run_and_data_that_changed_under_it(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    rows = tmp_path / "rows.jsonl"
    lines = [json.dumps({"question": f"{n}+1", "reference": str(n + 1)}) for n in range(8)]
    rows.write_text("\n".join(lines))
    config = make_config(steps=2, deterministic=True, data={"train": {"path": str(rows)}})
    run_dir = tmp_path / "run"
    try:
        train(config, run_dir=run_dir, debug_inline=True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    rows.write_text("\n".join([*lines[:-1], lines[0]]))
    with pytest.raises(ConfigError, match=r"the rows of data\.train are not those .* began with"):
        train(config, run_dir=run_dir, resume=True, debug_inline=True)
