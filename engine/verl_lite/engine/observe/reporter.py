"""Reports a finished step: records, metrics, warnings, sample tables, a line on the display."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.observe.display import Display, StepReport
from verl_lite.engine.observe.metrics_log import MetricsLog
from verl_lite.engine.observe.monitors import Monitors
from verl_lite.engine.observe.rollout_metrics import fraction_right, length_metrics
from verl_lite.engine.observe.sample_tables import sample_table
from verl_lite.engine.observe.turn_metrics import turn_metrics
from verl_lite.engine.rundir.checkpoint_files import clear_write_errors
from verl_lite.engine.rundir.folder import RunFolder, bad_batch_path
from verl_lite.engine.types import StepBatch, TrainingSample
from verl_lite.plugins import ScoredRollout
from verl_lite.plugins.records import RecordWriter


class StepReporter:
    """Writes and shows steps. `metrics` are the newest step's, with its held-out evaluation."""

    def __init__(
        self, config: TrainConfig, folder: RunFolder, *, monitors: Monitors, log: MetricsLog, display: Display
    ) -> None:
        self._config = config
        self._folder = folder
        self._monitors = monitors
        self._log = log
        self._display = display
        self._num_bad_steps = 0
        self._has_noted_splits = False
        self.metrics: dict[str, float] = {}

    def report(
        self,
        step: int,
        batch: StepBatch,
        samples: Sequence[TrainingSample],
        *,
        measured: Mapping[str, float],
        seconds: Mapping[str, float],
    ) -> None:
        """Report `step`, which trained on `samples` of `batch`.

        `measured`: metrics of update and sync; `seconds`: the trainer's stages, in order.
        """
        rows, logging = batch.scored.rows, self._config.logging
        if _is_due(logging.rollouts_every_steps, step):
            self._write_records(step, rows, batch.advantages(samples))
        every_stage = {**batch.seconds, **seconds}
        metrics = {
            **batch.metrics,
            "rollout/accuracy": fraction_right(
                rows, self._config.accuracy_reward, self._config.evaluation.right_at
            ),
            **length_metrics(rows, seconds=every_stage["rollout"]),
            **turn_metrics(rows),
            **measured,
            "data/epoch": float(batch.epoch),
            **{f"time/{name}_s": value for name, value in every_stage.items()},
            "time/step_s": sum(seconds.values()),
        }
        watched, warnings = self._monitors.check(metrics, rows, version=step - 1)
        for warning in warnings:
            self._display.note(str(warning))
        self.metrics = metrics | watched
        self._note_bad_steps(step, int(metrics.get("learner/bad_steps", 0)))
        self._note_splits(step, metrics.get("turns/split_fraction", 0.0))
        self._log.log(self.metrics, step=step)
        if _is_due(logging.samples_every_steps, step):
            self._log.log_samples(sample_table(rows, step=step, count=logging.samples), step=step)
        self._display.step(self._shown(step, rows, seconds))

    def _write_records(
        self, step: int, rows: Sequence[ScoredRollout], advantages: Sequence[float | None]
    ) -> None:
        path = self._folder.rollouts(step)
        with clear_write_errors(f"rollouts to {path}"), RecordWriter(path) as writer:
            writer.write(rows, step=step, advantages=advantages)

    def _note_bad_steps(self, step: int, number: int) -> None:
        """Note newly skipped updates and where the last batch is; `number` counts all skipped so far."""
        skipped, self._num_bad_steps = number - self._num_bad_steps, number
        if skipped > 0:
            self._display.note(
                f"step {step}: updates skipped because of nan or inf in their gradients: {skipped}; "
                f"the last batch is kept in {bad_batch_path(self._folder.bad_batches, number)}"
            )

    def _note_splits(self, step: int, fraction: float) -> None:
        """Say once that trajectories are several training samples."""
        if fraction and not self._has_noted_splits:
            self._has_noted_splits = True
            self._display.note(
                f"step {step}: this chat template shows earlier turns differently once others follow, so "
                f"{fraction:.0%} of the trajectories are several training samples (docs/turns.md); later "
                "steps do not say so"
            )

    def _shown(self, step: int, rows: Sequence[ScoredRollout], seconds: Mapping[str, float]) -> StepReport:
        names = {name: f"reward/{name}/mean" for name in (rows[0].components if rows else ())}
        return StepReport(
            step=step,
            num_steps=self._config.steps,
            reward=self.metrics.get("reward/mean", math.nan),
            components={n: self.metrics[metric] for n, metric in names.items() if metric in self.metrics},
            accuracy=self.metrics["rollout/accuracy"],
            tokens_per_s=self.metrics["rollout/tokens_per_s"],
            seconds=seconds,
        )

    def report_held_out(
        self, step: int, measured: Mapping[str, float], *, before: Mapping[str, float]
    ) -> None:
        """Report the held-out evaluation after `step`; `before` is the one before the first step."""
        accuracy = measured["evaluation/accuracy"]
        self._display.note(f"held-out accuracy after step {step}: {accuracy:.1%}")
        warning = self._monitors.check_held_out(accuracy, before=before.get("evaluation/accuracy"))
        if warning is not None:
            self._display.note(str(warning))
        self._log.log(measured, step=step)
        self.metrics |= measured

    def state_dict(self) -> dict[str, Any]:
        finite = {name: value for name, value in self.metrics.items() if math.isfinite(value)}
        return {"monitors": self._monitors.state_dict(), "metrics": finite}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._monitors.load_state_dict(state["monitors"])
        self.metrics = dict(state["metrics"])
        self._num_bad_steps = int(self.metrics.get("learner/bad_steps", 0))


def _is_due(every_steps: int, step: int) -> bool:
    """The first step, and every `every_steps` from there (0: never)."""
    return bool(every_steps) and (step - 1) % every_steps == 0
