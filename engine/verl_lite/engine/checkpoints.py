"""Checkpoints: written aside and renamed, so that one is whole or not there at all.

checkpoints/step_000050/
    policy/        the weights (safetensors), config and tokenizer: a Hugging Face folder
    trainer.json   step, data position, the numbers the summary needs
    learner.pt     optimiser, scheduler, controllers
    rng.pt         the random states of this process
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from verl_lite.errors import CheckpointError

__all__ = ["Checkpoint", "latest_checkpoint", "load_checkpoint", "save_checkpoint"]

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """`step` counts the finished updates. `trainer` is plain data; `learner` holds tensors."""

    step: int
    trainer: Mapping[str, Any]
    learner: Mapping[str, Any]
    policy: Path


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    save_policy: Callable[[Path], None],
    learner: Mapping[str, Any],
    trainer: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write checkpoints/step_<step> and delete all but the newest `keep` (0: delete none)."""
    final = folder / f"step_{step:06d}"
    aside = folder / f".{final.name}.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_policy(aside / "policy")
    torch.save(dict(learner), aside / "learner.pt")
    torch.save(_random_states(), aside / "rng.pt")
    state = {"format": FORMAT, "step": step, **trainer}
    (aside / "trainer.json").write_text(json.dumps(state) + "\n", encoding="utf-8")
    if final.exists():  # the same step again: a resumed run that was stopped at once
        shutil.rmtree(final)
    os.replace(aside, final)
    if keep:
        for old in _complete(folder)[:-keep]:
            shutil.rmtree(old)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; one cut off while being written does not count."""
    found = _complete(folder)
    return found[-1] if found else None


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*") if (path / "trainer.json").is_file())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; raises CheckpointError when a part is missing or damaged.

    The random states are not restored here: `restore_random_states` does, right before the loop.
    """
    try:
        trainer = json.loads((path / "trainer.json").read_text(encoding="utf-8"))
        learner = torch.load(path / "learner.pt", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"the checkpoint {path} is damaged: {error}; resume from an older one"
        ) from error
    if trainer.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {trainer.get('format')}, this version reads {FORMAT}")
    return Checkpoint(step=trainer["step"], trainer=trainer, learner=learner, policy=path / "policy")


def _random_states() -> dict[str, Any]:
    version, internal, gauss = random.getstate()
    states: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "torch": torch.get_rng_state(),
        "numpy": _numpy_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _numpy_state() -> list[Any]:
    state: Any = np.random.get_state()
    return [torch.tensor(state[1].astype(np.int64)), *state[2:]]


def restore_random_states(path: Path) -> None:
    """Put Python's, NumPy's and torch's generators where they were when the checkpoint was written."""
    states = torch.load(path / "rng.pt", weights_only=True)
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(states["torch"])
    keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
