"""Checkpoints are whole or not there, and bring the random states back."""

import json
import random
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from verl_lite.engine.config import CheckpointConfig
from verl_lite.engine.rundir import (
    CheckpointWriter,
    copy_of,
    load_checkpoint,
    load_tensors,
    newest_whole,
    remove_leftovers,
    restore_random_states,
    why_not_whole,
)
from verl_lite.errors import CheckpointError


def write_policy(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")


def saving(
    save_policy: Callable[[Path], None], learner: Mapping[str, Any]
) -> Callable[[Path], Callable[[], None]]:
    """The start_saving of a learner that copies its state at once, as the real one does."""

    def start(folder: Path) -> Callable[[], None]:
        kept = copy_of(learner)

        def finish() -> None:
            save_policy(folder / "policy")
            torch.save(kept, folder / "learner.pt")

        return finish

    return start


def save(folder: Path, step: int, keep: int = 0, *, policy: Callable[[Path], None] | None = None) -> Path:
    learner = {"moment": torch.arange(3.0), "num_steps": step}
    with closing(CheckpointWriter(folder, CheckpointConfig(keep=keep))) as writer:
        path = writer.submit(
            step=step,
            start_saving=saving(policy or write_policy, learner),
            trainer={"prompts": {"epoch": 1}},
        )
        writer.finish()
    return path


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    assert path.name == "step_000007"
    loaded = load_checkpoint(path)
    assert loaded.step == 7
    assert loaded.trainer["prompts"] == {"epoch": 1}
    assert torch.equal(load_tensors(loaded.path / "learner.pt")["moment"], torch.arange(3.0))
    assert (loaded.path / "policy" / "model.safetensors").read_bytes() == b"weights"


def test_a_crash_while_writing_leaves_the_older_one(tmp_path: Path) -> None:
    old = save(tmp_path, 1)

    def crash(folder: Path) -> None:
        write_policy(folder)
        raise OSError("no space left")

    with pytest.raises(CheckpointError, match=r"step_000002: no space left\. Training has stopped; older"):
        save(tmp_path, 2, keep=1, policy=crash)
    assert newest_whole(tmp_path)[0] == old
    assert save(tmp_path, 2).is_dir()  # the leftover is no obstacle


def test_only_the_newest_are_kept_and_the_same_step_is_replaced(tmp_path: Path) -> None:
    for step in (1, 2, 3, 3):
        newest = save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000002", "step_000003"]
    assert newest_whole(tmp_path)[0] == newest
    assert newest_whole(tmp_path / "none")[0] is None


def test_damage_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "learner.pt").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="step_000001 is damaged"):
        load_tensors(path / "learner.pt")
    newer = save(tmp_path, 2)
    state = json.loads((newer / "trainer.json").read_text())
    (newer / "trainer.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(CheckpointError, match="has format 99, this version reads 2"):
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


def submit(writer: CheckpointWriter, step: int, **metrics: float) -> None:
    writer.submit(
        step=step,
        start_saving=saving(write_policy, {"moment": torch.full((2,), float(step))}),
        trainer={"metrics": metrics},
    )


@pytest.mark.parametrize("damage", ["cut", "flip", "delete", "manifest", "escape"])
def test_a_damaged_checkpoint_is_passed_over_with_the_reason(tmp_path: Path, damage: str) -> None:
    old, new = save(tmp_path, 1), save(tmp_path, 2)
    weights, manifest = new / "policy" / "model.safetensors", new / "manifest.json"
    if damage == "cut":
        weights.write_bytes(b"wei")
        reason = "policy/model.safetensors has 3 bytes, manifest.json says 7"
    elif damage == "flip":
        weights.write_bytes(b"weighty")
        reason = "the SHA-256 of policy/model.safetensors is not the one in manifest.json"
    elif damage == "delete":
        weights.unlink()
        reason = "model.safetensors is missing"
    elif damage == "manifest":
        manifest.unlink()
        reason = "manifest.json is missing"
    else:
        manifest.write_text('{"files": {"../../../etc/passwd": {"bytes": 1, "sha256": ""}}}')
        reason = "'../../../etc/passwd' leads out of the checkpoint"
    found, passed = newest_whole(tmp_path)
    assert found == old
    assert [one.path for one in passed] == [new]
    assert reason in passed[0].reason


def test_what_may_hold_code_is_refused_not_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "ran",)

    path = save(tmp_path, 1)
    torch.save({"moment": Hostile()}, path / "learner.pt")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_tensors(path / "learner.pt")
    assert not (tmp_path / "ran").exists()


def test_the_newest_the_spaced_and_the_best_stay(tmp_path: Path) -> None:
    rules = CheckpointConfig(keep=2, keep_every_steps=4, keep_best="evaluation/accuracy")
    writer = CheckpointWriter(tmp_path, rules)
    accuracy = {1: 0.1, 2: 0.9, 3: 0.5, 5: 0.7}  # step 4 and 6 to 9 were not measured
    for step in range(1, 10):
        submit(writer, step, **({"evaluation/accuracy": accuracy[step]} if step in accuracy else {}))
    writer.finish()
    writer.close()
    assert [path.name[-1] for path in sorted(tmp_path.iterdir())] == ["2", "4", "8", "9"]


def test_a_snapshot_does_not_see_later_updates(tmp_path: Path) -> None:
    import threading

    may_write = threading.Event()
    weights = {"w": torch.zeros(3)}
    kept = copy_of(weights)
    moment = torch.zeros(3)

    def slow(folder: Path) -> None:
        assert may_write.wait(10)
        folder.mkdir()
        torch.save(kept, folder / "w.pt")

    writer = CheckpointWriter(tmp_path, CheckpointConfig(keep=0))
    path = writer.submit(step=1, start_saving=saving(slow, {"m": moment}), trainer={})
    assert not path.exists()  # it came back before anything was written
    weights["w"] += 1
    moment += 1
    may_write.set()
    writer.finish()
    writer.close()
    assert torch.equal(load_tensors(path / "learner.pt")["m"], torch.zeros(3))
    assert torch.equal(torch.load(path / "policy" / "w.pt", weights_only=True)["w"], torch.zeros(3))


def test_what_goes_wrong_on_the_thread_is_raised_in_training(tmp_path: Path) -> None:
    def no_room(folder: Path) -> None:
        raise OSError("no space left")

    writer = CheckpointWriter(tmp_path, CheckpointConfig(keep=0))
    writer.submit(step=1, start_saving=saving(no_room, {}), trainer={})
    with pytest.raises(CheckpointError, match=r"could not write the checkpoint .*step_000001"):
        writer.finish()
    writer.finish()  # said once
    writer.close()


def test_a_folder_that_cannot_be_made_is_raised_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = CheckpointWriter(tmp_path / "file" / "checkpoints", CheckpointConfig(keep=0))
    with pytest.raises(CheckpointError, match=r"could not write the checkpoint .*step_000001"):
        submit(writer, 1)
    writer.close()


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    whole = save(tmp_path, 1)
    for name in (".step_000002.part", ".step_000000.old"):
        (tmp_path / name / "policy").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [whole]
    assert why_not_whole(whole) == ""
