"""Checkpoints of a supervised loop (SFT, DPO, reward models), from which it continues as the same run.

They are written and kept like those of RL (rundir/checkpoints.py): aside, with checksums, beside
training, by the config's `checkpoints`. Each holds the trained weights, the optimiser, the random states
and the loop's own state; policy/ is a complete model folder with adapters merged. The order of the rows
follows from the seed alone, so a resumed loop skips the batches that were done.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from verl_lite.engine.config.train import CheckpointConfig
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
    retention,
)
from verl_lite.engine.rundir.interrupt import Interrupt, StopRequested
from verl_lite.engine.types import Tokenizer
from verl_lite.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopStart:
    """Where a loop begins: after `step` updates, from `checkpoint` (None: from its first step).

    `data` is the digest of its rows; `lines` tell the user what was found.
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
    """The newest whole checkpoint in `folder` when resuming; damaged ones are renamed to damaged_step_...

    Raises ConfigError when the rows are not those the run began with.
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
            data=data, lines=[*lines, f"no whole checkpoint in {folder}: starting from the first step"]
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

    The config says which checkpoints stay; the best one is chosen by the metrics `log` has of its step.
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
        self._writer = CheckpointWriter(folder, retention(config))

    @property
    def step(self) -> int:
        """The finished updates that the loop continues after."""
        return self._start.step

    def restore(self, model: nn.Module, optimizer: PolicyOptimizer) -> Mapping[str, Any]:
        """Put weights, optimiser and random states back; returns the loop's own state."""
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
        """Between two steps: save if it is time. Raises StopRequested, after saving, when asked to stop."""
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
        """Wait until the last checkpoint is on disk; raises CheckpointError when it cannot be written.

        After an error only the writing thread ends.
        """
        try:
            if error_type is None:
                self._writer.finish()
        finally:
            self._writer.close()
