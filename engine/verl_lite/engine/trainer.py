"""The training run: a supervised warm-up, then the RL loop, on the parts that preparation checked.

The loop is `Trainer.run_steps`; everything around it is set-up, records, logging and checkpoints.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from verl_lite.engine.algorithm.advantages import estimate_advantages
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.prompts import PromptStream
from verl_lite.engine.evaluation import Evaluation, evaluate, fraction_right
from verl_lite.engine.learner.bad_batch import bad_batch_path
from verl_lite.engine.observe.display import Display, StepReport
from verl_lite.engine.observe.metrics_log import MetricsLog
from verl_lite.engine.observe.monitors import Monitors
from verl_lite.engine.observe.rollback import Events, RollbackRules, Trouble, go_back, offer
from verl_lite.engine.observe.sample_tables import sample_table
from verl_lite.engine.observe.timeline import StageClock, Timeline
from verl_lite.engine.preparation import PreparedRun
from verl_lite.engine.rollout.async_source import OneAhead, Overlapped
from verl_lite.engine.rollout.batch_source import Batches, BatchesState, InTurn
from verl_lite.engine.rollout.canary import canary_limit
from verl_lite.engine.rollout.dynamic_sampling import StepBatch
from verl_lite.engine.rundir.checkpoint_files import clear_write_errors
from verl_lite.engine.rundir.checkpoints import (
    Checkpoint,
    CheckpointWriter,
    load_checkpoint,
    restore_random_states,
    retention,
)
from verl_lite.engine.rundir.interrupt import Interrupt, StopRequested
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors
from verl_lite.engine.types import PolicyLearner, Sampler, TrainingSample, never_stop
from verl_lite.plugins import ScoredRollout
from verl_lite.plugins.records import RecordWriter
from verl_lite.plugins.scorer import Scorer

__all__ = ["Trainer"]


class Trainer:
    """Holds the parts of a run. `step` counts finished updates and is where a resumed run goes on."""

    def __init__(
        self,
        prepared: PreparedRun,
        *,
        learner: PolicyLearner,
        sampler: Sampler,
        scorer: Scorer,
        log: MetricsLog,
        display: Display,
        interrupt: Interrupt,
        timeline: Timeline | None = None,
    ) -> None:
        self._prepared = prepared
        self._config: TrainConfig = prepared.config
        self._learner = learner
        self._sampler = sampler
        self._scorer = scorer
        self._log = log
        self._display = display
        self._interrupt = interrupt
        self._timeline = timeline
        self._batches = _batches(
            sampler,
            scorer,
            prepared.config,
            PromptStream(prepared.train_prompts, seed=prepared.config.seed),
            check=interrupt.check,
            timeline=timeline,
        )
        self.step = 0
        self.before: Mapping[str, float] = {}
        self._canary_difference = 0.0
        self._numbers: dict[str, float] = {}  # what was measured at this step
        self._num_bad_steps = 0
        self._checkpoint_s = 0.0
        self._saved_step: int | None = None
        self._writer = CheckpointWriter(prepared.folder.checkpoints, retention(prepared.config.checkpoints))
        self._monitors = Monitors(
            prepared.config.monitors,
            canary_limit=canary_limit(prepared.config),
            max_lag=prepared.config.asynchrony.largest_lag,
        )
        self._rules = RollbackRules(prepared.config.monitors)
        self._is_in_trouble = False  # a broken rule was said, and is still broken
        self._events = Events(prepared.folder.events)
        if prepared.checkpoint is not None:
            self._restore(prepared.checkpoint)

    def run_steps(self) -> None:
        """Train until `config.steps` updates are done; raises StopRequested after a Ctrl-C's checkpoint."""
        try:
            while self.step < self._config.steps:
                self._one_step()
                self._between_steps()
        except StopRequested:
            self.save()
            self._writer.finish()
            raise
        self._writer.finish()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        self._batches.close()
        self._writer.close()

    def _one_step(self) -> None:
        clock = StageClock(self._timeline, step=self.step + 1)
        batch = self._batches.take(self.step, clock)
        with clock.stage("update"), clear_memory_errors("updating", step=self.step + 1):
            statistics = self._learner.token_statistics(batch.trained)
            coefficient = self._learner.kl_coefficient
            samples = estimate_advantages(
                batch.trained, self._config.algorithm, statistics, kl_coefficient=coefficient
            )
            stats = self._learner.update(samples)
        self.step += 1
        self._batches.settle(clock)
        with clock.stage("sync"):
            self.sync()
        self._report(batch, samples, stats.metrics, clock.seconds)

    def sync(self) -> None:
        """Hand the learner's weights to the sampler; raises TrainingError when they did not arrive."""
        self._sampler.wake()
        self._canary_difference = self._sampler.load_weights(self._learner, version=self.step)

    def _between_steps(self) -> None:
        trouble = self._rules.judge(self._numbers, step=self.step)
        if trouble is not None and self._config.monitors.rollback.on != "nothing":
            self._go_back(trouble)
            return
        if trouble is not None and not self._is_in_trouble:
            self._writer.finish()
            checkpoints = self._prepared.folder.checkpoints
            self._display.note(offer(trouble, step=self.step, checkpoints=checkpoints))
        self._is_in_trouble = trouble is not None
        every = self._config.evaluation.every_steps
        if every and self.step % every == 0 and self.step < self._config.steps:
            self._measure()
        every = self._config.checkpoints.every_steps
        if self.step == self._config.steps or (every and self.step % every == 0):
            self.save()
        if self.step < self._config.steps:
            self._interrupt.check()

    def _measure(self) -> None:
        measured = self.evaluate().metrics
        accuracy = measured["evaluation/accuracy"]
        self._display.note(f"held-out accuracy after step {self.step}: {accuracy:.1%}")
        warning = self._monitors.look_held_out(accuracy, before=self.before.get("evaluation/accuracy"))
        if warning is not None:
            self._display.note(str(warning))
        self._log.log(measured, step=self.step)
        self._numbers |= measured

    def _go_back(self, trouble: Trouble) -> None:
        """Return to the last good checkpoint, or raise TrainingError; what came after it is kept aside."""
        folder, step = self._prepared.folder, self.step
        self._writer.finish()
        path = go_back(
            trouble,
            step=step,
            config=self._config.monitors,
            checkpoints=folder.checkpoints,
            events=self._events,
        )
        self._restore(load_checkpoint(path))
        into = f"{self._events.num_rollbacks():02d}"
        self._log.set_aside(self.step, into=folder.path / "rolled_back" / into / "metrics.jsonl")
        folder.set_aside(self.step, into=into)
        self.sync()
        restore_random_states(path)
        self._display.note(
            f"{trouble.rule} at step {step}: {trouble.why}; back to step {self.step}, "
            "with a lower learning rate"
        )

    def evaluate(self, *, may_stop: bool = False) -> Evaluation:
        """Held-out greedy accuracy of the weights the sampler has now.

        With `may_stop` a Ctrl-C ends it (StopRequested): where a resumed run measures it again.
        """
        with clear_memory_errors("generating", step=self.step):
            return evaluate(
                self._sampler,
                self._scorer,
                self._prepared.held_out_prompts,
                max_new_tokens=self._config.rollout.max_new_tokens,
                accuracy_reward=self._config.accuracy_reward,
                right_at=self._config.evaluation.right_at,
                step=self.step,
                check=self._interrupt.check if may_stop else never_stop,
            )

    def save(self) -> None:
        """Have a checkpoint of the finished steps written while training goes on."""
        if self._saved_step == self.step:
            return
        started = time.perf_counter()
        self._log.sync()
        batches = self._batches.state()
        self._writer.submit(
            step=self.step,
            start_saving=partial(self._learner.start_saving, tokenizer=self._prepared.tokenizer),
            rollouts=batches.rows,
            trainer={
                **batches.plain,
                "before": dict(self.before),
                "monitors": self._monitors.state_dict(),
                "rules": self._rules.state_dict(),
                "metrics": {name: value for name, value in self._numbers.items() if math.isfinite(value)},
            },
        )
        self._saved_step = self.step
        self._checkpoint_s += time.perf_counter() - started

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._learner.restore(checkpoint.path)
        self._batches.restore(BatchesState(plain=checkpoint.trainer, rows=checkpoint.rollouts))
        self.before = checkpoint.trainer["before"]
        self._monitors.load_state_dict(checkpoint.trainer["monitors"])
        self._rules.load_state_dict(checkpoint.trainer["rules"])
        factor = self._config.monitors.rollback.learning_rate_factor
        self._learner.scale_learning_rate(factor ** self._events.num_rollbacks())
        self._num_bad_steps = int(checkpoint.trainer["metrics"].get("learner/bad_steps", 0))
        self.step = self._saved_step = checkpoint.step

    def _report(
        self,
        batch: StepBatch,
        samples: Sequence[TrainingSample],
        update_metrics: Mapping[str, float],
        main_seconds: Mapping[str, float],
    ) -> None:
        config, rows = self._config, batch.scored.rows
        seconds = {**batch.seconds, **main_seconds}
        every = config.logging.rollouts_every_steps
        if every and (self.step - 1) % every == 0:
            path = self._prepared.folder.rollouts(self.step)
            with clear_write_errors(f"rollouts to {path}"), RecordWriter(path) as writer:
                writer.write(rows, step=self.step, advantages=_advantages_by_row(batch, samples))
        num_tokens = sum(len(row.rollout.completion_ids) for row in rows)
        accuracy = fraction_right(rows, config.accuracy_reward, config.evaluation.right_at)
        metrics = {
            **batch.metrics,
            **update_metrics,
            "rollout/accuracy": accuracy,
            "rollout/completion_tokens_mean": num_tokens / len(rows),
            "rollout/truncated_fraction": sum(row.rollout.is_truncated for row in rows) / len(rows),
            "rollout/tokens_per_s": num_tokens / seconds["rollout"],
            **getattr(self._sampler, "metrics", {}),  # of engines that can be lost
            "canary/max_difference": self._canary_difference,
            "data/epoch": float(batch.epoch),
            **{f"time/{name}_s": value for name, value in seconds.items()},
            "time/step_s": sum(main_seconds.values()),
            "time/checkpoint_s": self._checkpoint_s,
        }
        watched, warnings = self._monitors.look(metrics, rows, version=self.step - 1)
        metrics |= watched
        for warning in warnings:
            self._display.note(str(warning))
        self._tell_bad_steps(int(metrics.get("learner/bad_steps", 0)))
        self._numbers, self._checkpoint_s = dict(metrics), 0.0
        self._log.log(metrics, step=self.step)
        every = config.logging.samples_every_steps
        if every and (self.step - 1) % every == 0:
            table = sample_table(rows, step=self.step, count=config.logging.samples)
            self._log.log_samples(table, step=self.step)
        self._display.step(
            StepReport(
                step=self.step,
                num_steps=config.steps,
                reward=metrics.get("reward/mean", float("nan")),
                components=_component_means(metrics, rows),
                accuracy=accuracy,
                tokens_per_s=metrics["rollout/tokens_per_s"],
                seconds=main_seconds,
            )
        )

    def _tell_bad_steps(self, number: int) -> None:
        """Say that updates were skipped, and where the last one's batch lies; `number` counts them all."""
        skipped, self._num_bad_steps = number - self._num_bad_steps, number
        if skipped > 0:
            self._display.note(
                f"step {self.step}: updates skipped because of nan or inf in their gradients: {skipped}; "
                f"the last batch is kept in {bad_batch_path(self._prepared.folder.bad_batches, number)}"
            )


def _advantages_by_row(batch: StepBatch, samples: Sequence[TrainingSample]) -> list[float | None]:
    """One advantage a row (its first token's); None for rows that left the batch."""
    rest = iter(samples)
    trained = [
        row.reward is not None and bool(row.rollout.completion_ids) and row.rollout.group in batch.groups
        for row in batch.scored.rows
    ]
    return [next(rest).advantages_T[0] if kept else None for kept in trained]


def _component_means(metrics: Mapping[str, float], rows: Sequence[ScoredRollout]) -> dict[str, float]:
    names = list(rows[0].components) if rows else []
    return {name: metrics[f"reward/{name}/mean"] for name in names if f"reward/{name}/mean" in metrics}


def _batches(
    sampler: Sampler,
    scorer: Scorer,
    config: TrainConfig,
    prompts: PromptStream,
    *,
    check: Callable[[], None],
    timeline: Timeline | None,
) -> Batches:
    """The batches of the config's asynchrony.mode. `check` raises StopRequested after a Ctrl-C."""
    if config.asynchrony.mode == "sync":
        return InTurn(sampler, scorer, config, prompts, check=check)
    kind = OneAhead if config.asynchrony.mode == "one_ahead" else Overlapped
    return kind(sampler, scorer, config, prompts, check=check, timeline=timeline)
