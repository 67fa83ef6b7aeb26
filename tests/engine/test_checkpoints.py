"""Checkpoints are whole or not there, and bring the random states back."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from verl_lite.engine.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    restore_random_states,
    save_checkpoint,
)
from verl_lite.errors import CheckpointError


def write_policy(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")


def save(folder: Path, step: int, keep: int = 0) -> Path:
    return save_checkpoint(
        folder,
        step=step,
        save_policy=write_policy,
        learner={"moment": torch.arange(3.0), "num_steps": step},
        trainer={"prompts": {"epoch": 1}},
        keep=keep,
    )


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    assert path.name == "step_000007"
    loaded = load_checkpoint(path)
    assert loaded.step == 7
    assert loaded.trainer["prompts"] == {"epoch": 1}
    assert torch.equal(loaded.learner["moment"], torch.arange(3.0))
    assert (loaded.policy / "model.safetensors").read_bytes() == b"weights"


def test_a_crash_while_writing_leaves_the_older_one(tmp_path: Path) -> None:
    old = save(tmp_path, 1)

    def crash(folder: Path) -> None:
        write_policy(folder)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(tmp_path, step=2, save_policy=crash, learner={}, trainer={}, keep=1)
    assert latest_checkpoint(tmp_path) == old
    assert save(tmp_path, 2).is_dir()  # the leftover is no obstacle


def test_only_the_newest_are_kept_and_the_same_step_is_replaced(tmp_path: Path) -> None:
    for step in (1, 2, 3, 3):
        newest = save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000002", "step_000003"]
    assert latest_checkpoint(tmp_path) == newest
    assert latest_checkpoint(tmp_path / "none") is None


def test_damage_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "learner.pt").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="step_000001 is damaged"):
        load_checkpoint(path)
    newer = save(tmp_path, 2)
    state = json.loads((newer / "trainer.json").read_text())
    (newer / "trainer.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(CheckpointError, match="has format 99, this version reads 1"):
        load_checkpoint(newer)


def test_the_random_states_come_back(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    np.random.standard_normal()  # leaves a cached second value, which is part of the state
    path = save(tmp_path, 1)
    first = draw()
    assert draw() != first
    restore_random_states(path)
    assert draw() == first
