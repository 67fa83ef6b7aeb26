"""Checkpoints: snapshots of a step, written while training continues.

checkpoints/step_000050/
    policy/        the weights (safetensors), config and tokenizer: a Hugging Face folder
    trainer.json   step, data position, metrics for the summary
    learner.pt     optimiser, scheduler, controllers (tensors and plain data: read with weights_only)
    rng.pt         the random states of this process
    rollouts.parquet  rollouts sampled but not yet trained on, if any
    manifest.json  size and SHA-256 of every file above; written last
"""

import json
import pickle  # for the name of its error; nothing is unpickled here
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from verl_lite.engine.config.records import CheckpointConfig
from verl_lite.engine.rundir.checkpoint_files import (
    apply_retention,
    clear_write_errors,
    damaged,
    put_in_place,
    write_manifest,
)
from verl_lite.errors import CheckpointError, DataError, VerlLiteError
from verl_lite.plugins import ScoredRollout
from verl_lite.plugins.records import RecordWriter, read_records, to_scored

FORMAT = 2
StartSaving = Callable[[Path], Callable[[], None]]
ROLLOUTS = "rollouts.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """`step` counts the finished updates. `trainer` is plain data; the learner reads its files in `path`.

    `rollouts` had been sampled but not trained on.
    """

    step: int
    trainer: Mapping[str, Any]
    path: Path
    rollouts: Sequence[ScoredRollout] = ()


def copy_of(tree: Any) -> Any:
    """The tree with every tensor copied to the CPU.

    >>> weights = {"a": torch.zeros(1), "steps": [1, 2]}
    >>> kept = copy_of(weights)
    >>> _ = weights["a"].add_(1)
    >>> kept
    {'a': tensor([0.]), 'steps': [1, 2]}
    """
    if isinstance(tree, torch.Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, Mapping):
        return {key: copy_of(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(copy_of(value) for value in tree)
    return tree


class CheckpointWriter:
    """Writes checkpoints on its own thread, one at a time.

    `submit` waits for the previous checkpoint, so at most one snapshot is in memory. If writing fails, the
    next `submit` or `finish` raises CheckpointError.
    """

    def __init__(self, folder: Path, rules: CheckpointConfig) -> None:
        self._folder = folder
        self._rules = rules
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None

    def submit(
        self,
        *,
        step: int,
        start_saving: StartSaving,
        trainer: Mapping[str, Any],
        rollouts: Sequence[ScoredRollout] = (),
    ) -> Path:
        """Start writing the checkpoint of `step`; returns its future path.

        `start_saving` (see PolicyLearner) is called here; the function it returns runs on the thread.
        """
        self.finish()
        with _clear_errors(self._folder, step):
            finish_saving = start_saving(_make_aside(self._folder, step))
        self._pending = self._thread.submit(
            _write,
            self._folder,
            step=step,
            finish_saving=finish_saving,
            random_states=_random_states(),
            trainer=trainer,
            rollouts=rollouts,
            rules=self._rules,
        )
        return self._folder / _name(step)

    def finish(self) -> None:
        """Wait until the last checkpoint is on disk; raises CheckpointError if writing failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Stop the thread after its current checkpoint; drops errors not raised so far."""
        self._thread.shutdown(wait=True)


def retire(folder: Path, config: CheckpointConfig) -> None:
    """Delete the checkpoints of a finished stage that only --resume needed."""
    with clear_write_errors(str(folder)):
        apply_retention(folder, config, is_over=True)


def _write(
    folder: Path,
    *,
    step: int,
    finish_saving: Callable[[], None],
    random_states: Mapping[str, Any],
    trainer: Mapping[str, Any],
    rules: CheckpointConfig,
    rollouts: Sequence[ScoredRollout],
) -> Path:
    final, aside = folder / _name(step), _aside(folder, step)
    with _clear_errors(folder, step):
        finish_saving()
        torch.save(dict(random_states), aside / "rng.pt")
        state = {"format": FORMAT, "step": step, **trainer}
        (aside / "trainer.json").write_text(json.dumps(state) + "\n", encoding="utf-8")
        if rollouts:
            with RecordWriter(aside / ROLLOUTS) as writer:
                writer.write(rollouts, step=step)
        write_manifest(aside)
        put_in_place(aside, final)
        apply_retention(folder, rules)
    return final


@contextmanager
def _clear_errors(folder: Path, step: int) -> Iterator[None]:
    try:
        yield
    # torch and safetensors wrap the operating system's error in their own
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(_aside(folder, step), ignore_errors=True)
        if isinstance(error, VerlLiteError):
            raise
        raise CheckpointError(
            f"could not write the checkpoint {folder / _name(step)}: {_reason(error)}. Training has stopped; "
            "older checkpoints are unharmed. Make room there (or make it writable) and continue with --resume"
        ) from error


def _make_aside(folder: Path, step: int) -> Path:
    aside = _aside(folder, step)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


def _aside(folder: Path, step: int) -> Path:
    return folder / f".{_name(step)}.part"


def _name(step: int) -> str:
    return f"step_{step:06d}"


def _reason(error: BaseException) -> str:
    while error.__context__ is not None:  # torch's writer fails again while closing: report the first error
        error = error.__context__
    return str(error).split("\n")[0]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, without its random states. Raises CheckpointError if it is damaged."""
    try:
        trainer = json.loads((path / "trainer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    if trainer.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {trainer.get('format')}, this version reads {FORMAT}")
    rollouts = _load_rollouts(path / ROLLOUTS)
    return Checkpoint(step=trainer["step"], trainer=trainer, path=path, rollouts=rollouts)


def _load_rollouts(file: Path) -> list[ScoredRollout]:
    try:
        return [to_scored(record) for record in read_records(file)] if file.exists() else []
    except DataError as error:
        raise damaged(file.parent, error) from error


def load_tensors(file: Path) -> dict[str, Any]:
    """The tensors and plain data in `file`; any other pickle is refused, not run."""
    try:
        loaded: dict[str, Any] = torch.load(file, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise damaged(file.parent, error) from error
    return loaded


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
    """Set Python's, NumPy's and torch's generators to their states in the checkpoint."""
    states = load_tensors(path / "rng.pt")
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(states["torch"])
    keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
