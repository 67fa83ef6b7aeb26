"""Checkpoints of an RL run: the learner, the batch source, and the trainer's plain state."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from verl_lite.engine.model.saved import check_saved_policy
from verl_lite.engine.observe.metrics_log import MetricsLog
from verl_lite.engine.preparation import PreparedRun
from verl_lite.engine.rollout.batch_source import BatchSource, SourceState
from verl_lite.engine.rollout.canary import Canary
from verl_lite.engine.rollout.replay import ReplayBuffer
from verl_lite.engine.rundir.checkpoints import Checkpoint, CheckpointWriter
from verl_lite.engine.types import PolicyLearner

COMPARED_TOKENS = 64


class RunCheckpoints:
    """Saves the run while training continues, at most once per step."""

    def __init__(
        self,
        prepared: PreparedRun,
        learner: PolicyLearner,
        source: BatchSource,
        *,
        log: MetricsLog,
        replay: ReplayBuffer | None = None,
    ) -> None:
        self._learner = learner
        self._replay = replay
        self._source = source
        self._log = log
        self._start_saving = partial(learner.start_saving, tokenizer=prepared.tokenizer)
        self._writer = CheckpointWriter(prepared.folder.checkpoints, prepared.config.checkpoints)
        self._prompt_ids = list(prepared.train_prompts[0].prompt_ids)[:COMPARED_TOKENS]
        # trained weights are saved in float32; merged adapters in the base's dtype
        self._dtype = "float32" if prepared.config.learner.lora is None else prepared.config.model.dtype
        self._saved_step: int | None = None
        self._saved_path: Path | None = None
        self._seconds = 0.0

    def save(self, step: int, trainer: Mapping[str, Any]) -> None:
        """Start writing a checkpoint of the finished steps; `trainer` is plain data."""
        if self._saved_step == step:
            return
        started = time.perf_counter()
        self._log.sync()  # a checkpoint must never be newer than its metrics
        source = self._source.state()
        self._saved_path = self._writer.submit(
            step=step,
            start_saving=self._start_saving,
            rollouts=source.rows if self._replay is None else [*source.rows, *self._replay.rows],
            trainer={**source.plain, **trainer, **self._replay_state(len(source.rows))},
        )
        self._saved_step = step
        self._seconds += time.perf_counter() - started

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the learner and the batch source."""
        self._learner.restore(checkpoint.path)
        kept = checkpoint.trainer.get("replay", {"starts_at": len(checkpoint.rollouts), "steps": {}})
        fresh, rare = checkpoint.rollouts[: kept["starts_at"]], checkpoint.rollouts[kept["starts_at"] :]
        self._source.restore(SourceState(plain=checkpoint.trainer, rows=fresh))
        if self._replay is not None:
            self._replay.restore(rare, kept["steps"])
        self._saved_step = checkpoint.step

    def _replay_state(self, starts_at: int) -> dict[str, Any]:
        """Where the replay buffer's rows start among the rollouts, and the steps of its groups."""
        return (
            {} if self._replay is None else {"replay": {"starts_at": starts_at, "steps": self._replay.steps}}
        )

    def take_seconds(self) -> float:
        """Seconds training waited for `save` since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def finish(self) -> None:
        """Wait until the last checkpoint is on disk; raises CheckpointError if writing failed."""
        self._writer.finish()

    def check_last(self) -> None:
        """Load the policy just saved again and compare it with the learner (see check_saved_policy)."""
        if self._saved_path is None or len(self._prompt_ids) < 2:
            return
        canary = Canary(self._prompt_ids, dtype=self._dtype)
        check_saved_policy(
            self._saved_path / "policy",
            self._prompt_ids,
            canary.expect(self._learner),
            dtype=self._dtype,
            limit=canary.limit,
            names=lambda: (name for name, _ in self._learner.checkpoint_weights()),
        )

    def close(self) -> None:
        """Stop the writer thread after its current checkpoint. Raises nothing."""
        self._writer.close()
