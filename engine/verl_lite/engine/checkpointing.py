"""Checkpoints of the RL run as a whole: the learner, the batch source, and the trainer's plain state."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from verl_lite.engine.observe.metrics_log import MetricsLog
from verl_lite.engine.preparation import PreparedRun
from verl_lite.engine.rollout.batch_source import BatchSource, SourceState
from verl_lite.engine.rundir.checkpoints import Checkpoint, CheckpointWriter, retention
from verl_lite.engine.types import PolicyLearner


class RunCheckpoints:
    """Saves the run beside the training that goes on, each step at most once."""

    def __init__(
        self, prepared: PreparedRun, learner: PolicyLearner, source: BatchSource, *, log: MetricsLog
    ) -> None:
        self._learner = learner
        self._source = source
        self._log = log
        self._start_saving = partial(learner.start_saving, tokenizer=prepared.tokenizer)
        self._writer = CheckpointWriter(prepared.folder.checkpoints, retention(prepared.config.checkpoints))
        self._saved_step: int | None = None
        self._seconds = 0.0

    def save(self, step: int, trainer: Mapping[str, Any]) -> None:
        """Start writing a checkpoint of the finished steps; `trainer` is plain data."""
        if self._saved_step == step:
            return
        started = time.perf_counter()
        self._log.sync()  # a checkpoint must never be newer than its metrics
        source = self._source.state()
        self._writer.submit(
            step=step,
            start_saving=self._start_saving,
            rollouts=source.rows,
            trainer={**source.plain, **trainer},
        )
        self._saved_step = step
        self._seconds += time.perf_counter() - started

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put the learner and the batch source where they were."""
        self._learner.restore(checkpoint.path)
        self._source.restore(SourceState(plain=checkpoint.trainer, rows=checkpoint.rollouts))
        self._saved_step = checkpoint.step

    def take_seconds(self) -> float:
        """How long training waited for `save` since this was last asked."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def finish(self) -> None:
        """Wait until the last checkpoint is on the disk; raises CheckpointError when it is not."""
        self._writer.finish()

    def close(self) -> None:
        """End the writing thread after its current checkpoint. Raises nothing."""
        self._writer.close()
