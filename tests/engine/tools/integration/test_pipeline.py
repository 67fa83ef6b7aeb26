"""Stages in order: folders handed on, failures named, finished ones not run again."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from verl_lite.cli.app import app
from verl_lite.engine.tools import PipelineConfig, pipeline as pipeline_module, run_pipeline
from verl_lite.errors import ConfigError, TrainingError
from verl_lite.lab.preferences import read_preferences
from verl_lite.plugins import load_config

EXAMPLE = Path(__file__).parents[4] / "examples" / "pipeline.yaml"


def config(rollouts: Path, *, use: str = "exact") -> PipelineConfig:
    collect: dict[str, Any] = {
        "command": "preferences collect",
        "arguments": [str(rollouts), "--rewards", "{config}", "-o", "{stage}/p.jsonl"],
        "config": {"rewards": {"correct": {"use": use}}},
    }
    agree = {"command": "preferences agreement", "arguments": ["{folder}/collect/p.jsonl", "--json"]}
    return PipelineConfig(stages={"collect": collect, "agree": agree})


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    path = tmp_path / "rollouts.jsonl"
    path.write_text(
        '{"group": "a", "prompt": "2+2", "completion": "4", "reference": "4"}\n'
        '{"group": "a", "prompt": "2+2", "completion": "5", "reference": "4"}\n'
    )
    return path


def test_stages_hand_their_folders_on_and_are_not_run_again(rollouts: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "run"
    run_pipeline(config(rollouts), folder, say=said.append)
    (row,) = read_preferences(folder / "collect" / "p.jsonl")
    assert list(row.ranks) == [1, 2]
    assert [line.split(":")[0] for line in said] == ["stage 1/2 collect", "stage 2/2 agree"]
    said.clear()
    run_pipeline(config(rollouts), folder, say=said.append)
    assert said == ["stage 1/2 collect: done before", "stage 2/2 agree: done before"]
    with pytest.raises(ConfigError, match="stage collect was run with other settings"):
        run_pipeline(config(rollouts, use="math"), folder, say=said.append)


def test_a_failed_stage_is_named_and_taken_up_again(rollouts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    text = rollouts.read_text()
    rollouts.unlink()
    with pytest.raises(TrainingError, match="stage collect ended with exit code 2"):
        run_pipeline(config(rollouts), folder, say=lambda _: None)
    rollouts.write_text(text)
    run_pipeline(config(rollouts), folder, say=lambda _: None)
    assert (folder / "collect" / "p.jsonl").is_file()


def test_a_stage_of_training_that_was_interrupted_goes_on_from_its_checkpoint(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_this_process(command: list[str], **_: Any) -> Any:
        return SimpleNamespace(returncode=CliRunner().invoke(app, command[3:]).exit_code)

    monkeypatch.setattr(pipeline_module, "subprocess", SimpleNamespace(run=in_this_process))

    def pipeline(*, seed: int = 0) -> PipelineConfig:
        tree = {
            "steps": 0,
            "seed": seed,
            "model": {"path": str(small_model)},
            "data": {"train": {"task": "arithmetic", "num_rows": 12}},
            "sft": {"steps": 4, "batch_rows": 4},
            "rollout": {"max_prompt_tokens": 32, "max_new_tokens": 48},
            "checkpoints": {"every_steps": 1, "keep": 0},
            "logging": {"trackers": []},
        }
        stage = {"command": "sft", "arguments": ["--run-dir", "{stage}"], "config": tree}
        return PipelineConfig.model_validate({"stages": {"warm": stage}})

    folder, said = tmp_path / "run", list[str]()
    run_pipeline(pipeline(), folder, say=said.append)
    whole = (folder / "warm" / "model" / "model.safetensors").read_bytes()

    def interrupted() -> None:
        """As if it had been killed after step 2."""
        (folder / ".stages" / "warm.json").unlink()
        (folder / "warm" / "summary.json").unlink()
        for step in (3, 4):
            shutil.rmtree(folder / "warm" / "sft_checkpoints" / f"step_{step:06d}")

    interrupted()
    run_pipeline(pipeline(), folder, say=said.append)
    assert said[-1].endswith("--resume")
    assert (folder / "warm" / "model" / "model.safetensors").read_bytes() == whole
    interrupted()
    run_pipeline(pipeline(seed=1), folder, say=said.append)  # other settings: from the beginning
    assert not said[-1].endswith("--resume")


def test_a_folder_of_something_else_is_refused(rollouts: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files: choose another folder"):
        run_pipeline(config(rollouts), tmp_path / "run", say=lambda _: None)


@pytest.mark.parametrize("name", ["../other", "a/b", "..", ".stages", "/tmp/x", ""])
def test_a_stage_s_name_cannot_lead_out_of_the_folder_that_is_deleted(name: str) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        PipelineConfig.model_validate({"stages": {name: {"command": "sft"}}})


def test_the_example_is_valid() -> None:
    assert next(iter(load_config(PipelineConfig, EXAMPLE).stages)) == "sft"
