"""GRPO, PPO and relatives: the step that a run repeats, in the order of the data.

    next batch -> token statistics -> advantages -> update -> load weights -> report

A batch is made by rollout/batch_maker.py; when, the batch source decides (rollout/batch_source.py).
"""

from collections.abc import Mapping

from verl_lite.engine.algorithm.advantages import estimate_advantages
from verl_lite.engine.algorithm.trajectories import sample_parts
from verl_lite.engine.build import make_source
from verl_lite.engine.checkpointing import RunCheckpoints
from verl_lite.engine.demonstrations import LearningSignals
from verl_lite.engine.evaluation import HeldOutEvaluator
from verl_lite.engine.observe.display import Display
from verl_lite.engine.observe.metrics_log import MetricsLog
from verl_lite.engine.observe.monitors import Monitors
from verl_lite.engine.observe.reporter import StepReporter
from verl_lite.engine.observe.rollback import Rollback
from verl_lite.engine.observe.rollout_metrics import why_unjudged
from verl_lite.engine.observe.timeline import StageClock, Timeline
from verl_lite.engine.preparation import PreparedRun
from verl_lite.engine.rollout.canary import mismatch_limit, refuse_mismatch
from verl_lite.engine.rundir.checkpoints import Checkpoint, load_checkpoint, restore_random_states
from verl_lite.engine.rundir.interrupt import Interrupt, StopRequested
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors
from verl_lite.engine.types import PolicyLearner, Sampler, StepBatch, never_stop
from verl_lite.errors import TrainingError
from verl_lite.plugins.scorer import Scorer


class Trainer:
    """Runs the RL steps. `step` counts finished updates; `before`: held-out metrics before the first."""

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
        config, folder = prepared.config, prepared.folder
        self._config = config
        self._learner = learner
        self._sampler = sampler
        self._interrupt = interrupt
        self._signals = LearningSignals(prepared, learner)
        self._timeline = timeline
        self._source, replay = make_source(
            prepared, sampler, scorer, check=interrupt.check, timeline=timeline
        )
        self._held_out = HeldOutEvaluator(sampler, scorer, prepared.held_out_prompts, config, learner)
        max_lag = config.asynchrony.largest_lag
        explained = mismatch_limit(config, sampler)
        self._mismatch_limit = None if config.monitors.kl_sampler_trainer else explained
        monitors = Monitors(config.monitors, mismatch_limit=explained, max_lag=max_lag)
        self._reporter = StepReporter(config, folder, monitors=monitors, log=log, display=display)
        self._rollback = Rollback(config.monitors, folder, log=log, display=display)
        self._checkpoints = RunCheckpoints(prepared, learner, self._source, log=log, replay=replay)
        self.step = 0
        self._is_judged = False
        self.before: Mapping[str, float] = {}
        if prepared.checkpoint is not None:
            self._restore(prepared.checkpoint)

    def run_steps(self) -> None:
        """Train until `config.steps` updates are done. After Ctrl-C, saves and raises StopRequested."""
        try:
            while self.step < self._config.steps:
                self._one_step()
                self._between_steps()
        except StopRequested:
            self._save()
            self._checkpoints.finish()
            raise
        self._checkpoints.finish()
        self._checkpoints.check_last()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()
        self._signals.close()
        self._checkpoints.close()

    def _one_step(self) -> None:
        clock = StageClock(self._timeline, step=self.step + 1)
        batch = self._source.next(self.step, clock)
        self._check_judged(batch)
        with clock.stage("update"), clear_memory_errors("updating", step=self.step + 1):
            rows = [*batch.trained, *batch.replayed]
            statistics = self._learner.token_statistics(rows)
            kl = self._learner.kl_coefficient
            samples = estimate_advantages(rows, self._config.algorithm, statistics, kl_coefficient=kl)
            own, more, signals = self._signals.apply(samples, rows, step=self.step)
            stats = self._learner.update([*own, *more])
            refuse_mismatch(stats.metrics.get("policy/kl_sampler_trainer", 0.0), self._mismatch_limit)
        self.step += 1
        self._source.drain(clock)
        with clock.stage("sync"):
            canary_difference = self.sync()
        measured = {
            **stats.metrics,
            **signals,
            **getattr(self._sampler, "metrics", {}),  # of engines placed by Ray
            "canary/max_difference": canary_difference,
            **_canary_limit(self._sampler),
            "time/checkpoint_s": self._checkpoints.take_seconds(),
        }
        trained = own[: sum(len(sample_parts(row.rollout)) for row in batch.trained)]
        self._reporter.report(self.step, batch, trained, measured=measured, seconds=clock.seconds)

    def _check_judged(self, batch: StepBatch) -> None:
        """Raise TrainingError if every reward abstained on every row, and no earlier batch was judged."""
        if not self._is_judged and (why := why_unjudged(batch.scored.rows)):
            raise TrainingError(f"step {self.step + 1}: {why}")
        self._is_judged = True

    def sync(self) -> float:
        """Load the learner's weights into the sampler. Returns, and raises, as Sampler.load_weights."""
        with clear_memory_errors("loading the new weights", step=self.step):
            self._sampler.wake()
            return self._sampler.load_weights(self._learner, version=self.step)

    def _between_steps(self) -> None:
        """Roll back; or evaluate and save where due, and check for Ctrl-C."""
        path = self._rollback.check(
            self._reporter.metrics, step=self.step, finish_saving=self._checkpoints.finish
        )
        if path is not None:
            self._restore(load_checkpoint(path))
            self.sync()
            restore_random_states(path)
            return
        is_last = self.step == self._config.steps
        if self._is_due(self._config.evaluation.every_steps) and not is_last:
            self._reporter.report_held_out(self.step, self.evaluate(), before=self.before)
        if self._is_due(self._config.checkpoints.every_steps) or is_last:
            self._save()
        if not is_last:
            self._interrupt.check()

    def _is_due(self, every_steps: int) -> bool:
        return bool(every_steps) and self.step % every_steps == 0

    def evaluate(self, *, may_stop: bool = False) -> dict[str, float]:
        """Held-out metrics of the sampler's current weights, greedy.

        With `may_stop` Ctrl-C raises StopRequested: for evaluations that a resumed run repeats.
        """
        check = self._interrupt.check if may_stop else never_stop
        return self._held_out.evaluate(self.step, check=check)

    def _save(self) -> None:
        state = {**self._reporter.state_dict(), **self._rollback.state_dict(), "before": dict(self.before)}
        self._checkpoints.save(self.step, state)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._checkpoints.restore(checkpoint)
        self._reporter.load_state_dict(checkpoint.trainer)
        self._rollback.load_state_dict(checkpoint.trainer)
        self._learner.scale_learning_rate(self._rollback.learning_rate_scale)
        self.before = checkpoint.trainer["before"]
        self.step = checkpoint.step


def _canary_limit(sampler: Sampler) -> dict[str, float]:
    canary = getattr(sampler, "canary", None)
    return {} if canary is None else {"canary/limit": canary.limit}
