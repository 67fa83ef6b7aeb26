"""SFT, DPO and reward models: killed and resumed is, bit by bit, the run that never stopped."""

import json
import os
import signal
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from verl_lite.engine import train, train_only_sft
from verl_lite.engine.config import DatasetConfig, TrainConfig
from verl_lite.engine.data import arithmetic_rows, worked_answer
from verl_lite.engine.observe import MetricsLog, read_metrics
from verl_lite.engine.preference import DPOConfig, RewardModelConfig, train_dpo, train_reward_model
from verl_lite.errors import ConfigError

Start = Callable[..., Any]
LEARNER = {"optimizer": {"learning_rate": 3e-3, "warmup_steps": 2, "schedule": "cosine"}}
CHECKPOINTS = {"every_steps": 2, "keep": 2}


class Killed(BaseException):
    """Nothing in the engine expects it: the process might as well be gone."""


@pytest.fixture
def preferences(tmp_path: Path) -> Path:
    path = tmp_path / "preferences.jsonl"
    rows = []
    for row in arithmetic_rows("held_out", num_rows=24, seed=0):
        a, b = map(int, row["question"][:-1].split("+"))
        answers = [worked_answer(a, b + 1), worked_answer(a, b), "no idea"]
        rows.append({"prompt": row["question"], "completions": answers, "ranks": [2, 1, 3]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def starts(
    kind: str,
    small_model: Path,
    preferences: Path,
    *,
    checkpoints: dict[str, Any] | None = None,
    evaluate_every_steps: int = 3,
) -> tuple[Start, str]:
    """(a function that runs or resumes the whole of it in a folder, its metrics file)."""
    quiet = Console(file=StringIO(), width=100)
    shared = {
        "model": {"path": str(small_model)},
        "data": {"train": {"path": str(preferences)}, "max_tokens": 80, "held_out_fraction": 0.25},
        "steps": 7,
        "batch_rows": 5,
        "learner": {**LEARNER, "dropout": True, "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}},
        "checkpoints": checkpoints or CHECKPOINTS,
        "evaluate_every_steps": evaluate_every_steps,
        "trackers": (),
    }
    if kind == "dpo":
        dpo = DPOConfig(**shared)
        return lambda folder, **options: train_dpo(dpo, run_dir=folder, console=quiet, **options), (
            "metrics.jsonl"
        )
    if kind == "reward_model":
        scorer = RewardModelConfig(**shared)
        return lambda folder, **options: train_reward_model(
            scorer, run_dir=folder, console=quiet, **options
        ), ("metrics.jsonl")
    config = TrainConfig.model_validate(
        {
            "name": "small",
            "steps": 0,
            "model": {"path": str(small_model)},
            "data": {"train": {"task": "arithmetic", "num_rows": 40}},
            "sft": {
                "dropout": True,
                "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
                "steps": 7,
                "batch_rows": 5,
                "optimizer": LEARNER["optimizer"],
                "validation": {"fraction": 0.2, "every_steps": 1, "samples": 0, "patience": 3},
            },
            "rollout": {"max_prompt_tokens": 32, "max_new_tokens": 48},
            "checkpoints": checkpoints or CHECKPOINTS,
            "logging": {"trackers": ()},
        }
    )
    return lambda folder, **options: train_only_sft(config, run_dir=folder, console=quiet, **options), (
        "sft.jsonl"
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize("kind", ["sft", "dpo", "reward_model"])
def test_one_policy_says_what_stays_of_every_stage(
    kind: str, small_model: Path, preferences: Path, tmp_path: Path
) -> None:
    """In training the newest, the spaced and the best; after it, with the model saved, the last two."""
    metric = "sft/validation_loss" if kind == "sft" else "held_out/loss"
    rules = {
        "every_steps": 1,
        "keep": 1,
        "keep_every_steps": 3,
        "keep_best": metric,
        "keep_best_lowest": True,
    }
    start, metrics = starts(kind, small_model, preferences, checkpoints=rules)
    run = tmp_path / "run"
    start(run)
    folder = run / ("sft_checkpoints" if kind == "sft" else "checkpoints")
    measured = {row["step"]: row[metric] for row in read_metrics(run / metrics) if metric in row}
    if kind != "sft":
        measured.pop(7)  # the end is measured after the last checkpoint
    best = min(measured, key=lambda step: measured[step])
    assert names(folder) == sorted({f"step_{step:06d}" for step in (3, 6, best)})
    # what stays is a model folder; under adapters they are merged
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    loader = AutoModelForSequenceClassification if kind == "reward_model" else AutoModelForCausalLM
    model, report = loader.from_pretrained(folder / "step_000006" / "policy", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    last = dict(loader.from_pretrained(run / "model").named_parameters())
    start_weights = dict(loader.from_pretrained(small_model).named_parameters())
    name = "model.layers.0.self_attn.q_proj.weight"
    moved = dict(model.named_parameters())[name]
    assert 0 < (last[name] - moved).abs().max() < (start_weights[name] - last[name]).abs().max()


def test_without_rules_for_good_nothing_stays_and_with_keep_0_everything_does(
    small_model: Path, preferences: Path, tmp_path: Path
) -> None:
    for keep, expected in ((2, []), (0, ["step_000002", "step_000004", "step_000006"])):
        start, _ = starts(
            "dpo",
            small_model,
            preferences,
            checkpoints={"every_steps": 2, "keep": keep},
            evaluate_every_steps=0,
        )
        start(tmp_path / f"keep-{keep}")
        assert names(tmp_path / f"keep-{keep}" / "checkpoints") == expected


def test_a_best_that_is_never_measured_is_refused(small_model: Path, preferences: Path) -> None:
    with pytest.raises(ValueError, match=r"only measured with evaluate_every_steps above 0"):
        starts(
            "dpo",
            small_model,
            preferences,
            checkpoints={"keep_best": "held_out/accuracy"},
            evaluate_every_steps=0,
        )
    with pytest.raises(ValueError, match=r"only measured with sft\.validation\.every_steps above 0"):
        TrainConfig.model_validate(
            {
                "steps": 0,
                "model": {"path": str(small_model)},
                "data": {"train": {"task": "arithmetic", "num_rows": 4}},
                "checkpoints": {"keep_best": "sft/validation_loss"},
            }
        )


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends while it writes the metrics of `step`."""
    write = MetricsLog.log

    def log(self: MetricsLog, metrics: Any, *, step: int, at: int = step) -> None:
        if step == at:
            raise Killed
        write(self, metrics, step=step)

    monkeypatch.setattr(MetricsLog, "log", log)


@pytest.mark.parametrize("kind", ["sft", "dpo", "reward_model"])
def test_killed_and_resumed_is_the_run_that_never_stopped(
    kind: str, small_model: Path, preferences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, metrics = starts(kind, small_model, preferences)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start(whole)
    with monkeypatch.context() as patch:
        kill_at(6, patch)
        with pytest.raises(Killed):
            start(cut)
    assert not (cut / "summary.json").exists()
    assert max(row["step"] for row in read_metrics(cut / metrics)) == 5  # after the checkpoint of step 4
    start(cut, resume=True)
    assert read_metrics(cut / metrics) == read_metrics(whole / metrics)
    name = "model.safetensors"
    assert (cut / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()
    summaries = [json.loads((run / "summary.json").read_text())["metrics"] for run in (whole, cut)]
    assert summaries[0] == summaries[1]
    with pytest.raises(ConfigError, match="is finished: its model is in"):
        start(cut, resume=True)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_ctrl_c_leaves_a_checkpoint_and_a_damaged_one_is_passed_over(
    kind: str, small_model: Path, preferences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, metrics = starts(kind, small_model, preferences)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start(whole)
    write = MetricsLog.log

    def log(self: MetricsLog, metrics: Any, *, step: int) -> None:
        write(self, metrics, step=step)
        if step == 3 and "sft/validation_loss" not in metrics:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "log", log)
        start(cut)
    (folder,) = (cut / name for name in ("sft_checkpoints", "checkpoints") if (cut / name).is_dir())
    assert sorted(path.name for path in folder.iterdir()) == ["step_000002", "step_000003"]
    with (folder / "step_000003" / "learner.pt").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0" * 64)
    start(cut, resume=True)
    assert (folder / "damaged_step_000003").is_dir()
    assert read_metrics(cut / metrics) == read_metrics(whole / metrics)
    assert (cut / "model" / "model.safetensors").read_bytes() == (
        whole / "model" / "model.safetensors"
    ).read_bytes()


def test_other_rows_and_other_settings_are_refused(
    small_model: Path, preferences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, _ = starts("dpo", small_model, preferences)
    with monkeypatch.context() as patch:
        kill_at(4, patch)
        with pytest.raises(Killed):
            start(tmp_path / "run")
    rows = preferences.read_text().splitlines(keepends=True)
    preferences.write_text("".join(rows[1:]))
    with pytest.raises(ConfigError, match=r"rows to train on are not those .*step_000002 was written with"):
        start(tmp_path / "run", resume=True)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["data"]["data.train"]["rows"] == 18
    other = DPOConfig(**{**json_config(tmp_path / "run"), "beta": 0.3})
    with pytest.raises(ConfigError, match="beta differ from what"):
        train_dpo(other, run_dir=tmp_path / "run", resume=True)


def json_config(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return loaded


def warm_up_and_rl(**changes: Any) -> TrainConfig:
    tiny = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 128}
    tree = {
        "name": "small",
        "steps": 1,
        "model": {"tiny": tiny},
        "data": {"train": {"task": "arithmetic", "num_rows": 40}},
        "sft": {"steps": 5, "batch_rows": 5, "optimizer": LEARNER["optimizer"]},
        "rewards": {"format": {"use": "format", "options": {"pattern": "think_boxed"}}},
        "rollout": {
            "num_prompts": 4,
            "num_samples": 2,
            "max_prompt_tokens": 32,
            "max_new_tokens": 12,
            "sampler": "transformers",
        },
        "checkpoints": CHECKPOINTS,
        "logging": {"trackers": ()},
    }
    return TrainConfig.model_validate({**tree, **changes})


def test_train_killed_in_its_warm_up_goes_on_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = warm_up_and_rl()
    quiet = Console(file=StringIO(), width=100)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, run_dir=whole, debug_inline=True, console=quiet)
    with monkeypatch.context() as patch:
        kill_at(5, patch)
        with pytest.raises(Killed):
            train(config, run_dir=cut, debug_inline=True, console=quiet)
    assert names(cut / "sft_checkpoints") == ["step_000002", "step_000004"]
    fewer = config.model_copy(
        update={
            "sft": config.sft.model_copy(update={"data": DatasetConfig(task="arithmetic", num_rows=9)}),
        }
    )
    (cut / "config.yaml").write_text(yaml.safe_dump(fewer.model_dump(mode="json")))
    with pytest.raises(ConfigError, match="the rows of sft are not those"):
        train(fewer, run_dir=cut, resume=True, debug_inline=True, console=quiet)
    (cut / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    train(config, run_dir=cut, resume=True, debug_inline=True, console=quiet)
    assert names(cut / "sft_checkpoints") == []  # RL has checkpoints of its own now
    assert names(cut / "checkpoints") == ["step_000001"]
    assert read_metrics(cut / "sft.jsonl") == read_metrics(whole / "sft.jsonl")
    weights = "checkpoints/step_000001/policy/model.safetensors"
    assert (cut / weights).read_bytes() == (whole / weights).read_bytes()


def test_a_run_that_goes_on_in_its_warm_up_takes_the_points_of_rl_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in RL before its first checkpoint: TensorBoard must not show those steps twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = warm_up_and_rl(
        steps=3,
        sft={"steps": 1, "batch_rows": 5},
        checkpoints={"every_steps": 0},
        logging={"trackers": ["tensorboard"]},
    )
    quiet, run = Console(file=StringIO(), width=100), tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(3, patch)
        with pytest.raises(Killed):
            train(config, run_dir=run, debug_inline=True, console=quiet)
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [1, 2]
    train(config, run_dir=run, resume=True, debug_inline=True, console=quiet)
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [1, 2, 3]
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("reward/mean")] == [1, 2, 3]
