"""Checkpoints of a supervised loop (SFT, DPO, reward models), for an exact resume.

They are written and kept like those of RL (rundir/checkpoints.py). Each has the trained weights, optimiser,
random states and the loop's state; policy/ is a complete model folder with adapters merged. The order of
the rows follows from the seed, so a resumed loop skips finished batches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from verl_lite.engine.config.records import CheckpointConfig
from verl_lite.engine.learner.checkpoint import start_writing
from verl_lite.engine.learner.optimizer import PolicyOptimizer
from verl_lite.engine.model.weights import trained_parameters
from verl_lite.engine.observe.metrics_log import MetricsLog
from verl_lite.engine.rundir.checkpoint_files import (
    clear_write_errors,
    newest_whole,
    remove_leftovers,
    rename_damaged,
)
from verl_lite.engine.rundir.checkpoints import (
    Checkpoint,
    CheckpointWriter,
    load_checkpoint,
    load_tensors,
    restore_random_states,
)
from verl_lite.engine.rundir.interrupt import Interrupt, StopRequested
from verl_lite.engine.types import Tokenizer
from verl_lite.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopStart:
    """Where a loop begins: after `step` updates, from `checkpoint` (None: from its first step).

    `data` is the digest of its rows; `lines` are notes for the user.
    """

    data: str
    checkpoint: Checkpoint | None = None
    lines: Sequence[str] = ()

    @property
    def step(self) -> int:
        return self.checkpoint.step if self.checkpoint else 0

    @property
    def notes(self) -> Mapping[str, Any]:
        """The plain data stored with the checkpoint."""
        return self.checkpoint.trainer["notes"] if self.checkpoint else {}


def find_start(folder: Path, *, data: str, resume: bool) -> LoopStart:
    """The newest intact checkpoint in `folder` when resuming; renames damaged ones.

    Raises ConfigError if the rows differ from the original run's.
    """
    if not resume:
        return LoopStart(data=data)
    lines = []
    with clear_write_errors(str(folder)):
        remove_leftovers(folder)
        path, passed = newest_whole(folder)
        for one in passed:
            aside = rename_damaged(one)
            lines.append(f"passed over {one.path}: {one.reason}; renamed to {aside.name}")
    if path is None:
        return LoopStart(
            data=data, lines=[*lines, f"no intact checkpoint in {folder}: starting from the first step"]
        )
    checkpoint = load_checkpoint(path)
    if checkpoint.trainer["data"] != data:
        raise ConfigError(
            f"--resume: the rows to train on are not those {path} was written with; put the old data "
            "back, or start a new run"
        )
    lines.append(f"resumed from {path} after {checkpoint.step} steps")
    return LoopStart(data=data, checkpoint=checkpoint, lines=lines)


class LoopCheckpoints:
    """Restores a loop, and saves it every `every_steps` steps (0: never) and when the user asks to stop.

    The config says which checkpoints are kept; the best one is chosen by the metrics in `log`.
    """

    def __init__(
        self,
        folder: Path,
        start: LoopStart,
        *,
        config: CheckpointConfig,
        tokenizer: Tokenizer,
        log: MetricsLog,
        interrupt: Interrupt,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        """`notes` is plain data stored with every checkpoint."""
        self._every = config.every_steps
        self._tokenizer = tokenizer
        self._start = start
        self._log = log
        self._interrupt = interrupt
        self._notes = dict(notes or {})
        self._writer = CheckpointWriter(folder, config)

    @property
    def step(self) -> int:
        """The number of finished updates."""
        return self._start.step

    def restore(self, model: nn.Module, optimizer: PolicyOptimizer) -> Mapping[str, Any]:
        """Restore weights, optimiser and random states; returns the loop's state."""
        if self._start.checkpoint is None:
            return {}
        path = self._start.checkpoint.path
        learner = load_tensors(path / "learner.pt")
        with torch.no_grad():
            for name, parameter in trained_parameters(model):
                parameter.copy_(learner["trained"][name])
        optimizer.load_state_dict(learner["optimizer"])
        restore_random_states(path)
        memory: Mapping[str, Any] = learner["memory"]
        return memory

    def after(
        self,
        step: int,
        model: nn.Module,
        optimizer: PolicyOptimizer,
        *,
        memory: Mapping[str, Any] | None = None,
    ) -> None:
        """Save after `step` if due. Raises StopRequested, after saving, if the user asked to stop."""
        stops = self._interrupt.requested
        if stops or (self._every and step % self._every == 0):
            self._log.sync()  # a checkpoint is never newer than its metrics
            state = {
                "trained": {name: parameter.detach() for name, parameter in trained_parameters(model)},
                "optimizer": optimizer.state_dict(),
                "memory": memory or {},
            }
            self._writer.submit(
                step=step,
                start_saving=partial(start_writing, state, model, self._tokenizer),
                trainer={
                    "data": self._start.data,
                    "notes": self._notes,
                    "metrics": {k: v for k, v in self._log.of_step(step).items() if math.isfinite(v)},
                },
            )
        if stops:
            self._writer.finish()
            raise StopRequested

    def __enter__(self) -> "LoopCheckpoints":
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        """Wait for the last checkpoint (CheckpointError if writing failed); after an error just stop."""
        try:
            if error_type is None:
                self._writer.finish()
        finally:
            self._writer.close()
