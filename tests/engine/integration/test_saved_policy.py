"""At its end a run loads its last policy again: a wrong one is an error, with the learner's state kept."""

from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine import TrainConfig, train
from verl_lite.engine.learner import checkpoint
from verl_lite.errors import CheckpointError


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_a_run_whose_policy_is_saved_right_ends_well(small_run: dict[str, Any], tmp_path: Path, lora) -> None:
    small_run["learner"]["lora"] = lora
    config = TrainConfig.model_validate({**small_run, "steps": 1})
    train(config, run_dir=tmp_path / "run", show="quiet")
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_policy_that_is_saved_wrong_ends_the_run_with_one_message(
    small_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = checkpoint.save_policy

    def save_wrong(model: Any, tokenizer: Any, folder: Path, *, weights: Any) -> None:
        name = "model.layers.1.mlp.down_proj.weight"
        right(model, tokenizer, folder, weights={**weights, name: -weights[name]})

    monkeypatch.setattr(checkpoint, "save_policy", save_wrong)
    config = TrainConfig.model_validate({**small_run, "steps": 1})
    with pytest.raises(CheckpointError, match=r"step_000001/policy is not the one that was trained"):
        train(config, run_dir=tmp_path / "run", show="quiet")
    assert (tmp_path / "run" / "checkpoints" / "step_000001" / "learner.pt").is_file()
    assert not (tmp_path / "run" / "summary.json").exists()
