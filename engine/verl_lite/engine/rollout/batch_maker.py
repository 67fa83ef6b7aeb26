"""The rollouts of a step: next prompts -> generate -> score, until the batch is full.

AsyncSource does the same per group of a stream (async_source.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.stream import Prompts
from verl_lite.engine.observe.rollout_metrics import success_rates
from verl_lite.engine.observe.timeline import StageClock
from verl_lite.engine.rollout.batch_source import rollout_settings
from verl_lite.engine.rollout.dynamic_sampling import BatchBuilder
from verl_lite.engine.rollout.replay import ReplayBuffer
from verl_lite.engine.rollout.scoring import scoring
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors
from verl_lite.engine.types import Sampler, StepBatch
from verl_lite.plugins.scorer import Scorer


@dataclass(frozen=True, slots=True)
class BatchMaker:
    """Makes one batch; groups are scored while others are still being generated."""

    prompts: Prompts
    sampler: Sampler
    scorer: Scorer
    config: TrainConfig
    replay: ReplayBuffer | None = None

    def __call__(self, step: int, clock: StageClock, *, check: Callable[[], None]) -> StepBatch:
        """The batch of `step`. `check` is called several times per second and may raise to stop."""
        num_samples, settings = self.config.rollout.num_samples, rollout_settings(self.config, step)
        batch = BatchBuilder(self.config, num_rows=self.prompts.num_rows)
        while num_prompts := batch.num_missing:
            prompts = self.prompts.take(num_prompts, besides=batch.prompts)
            with (
                clock.stage("rollout"),
                clear_memory_errors("generating", step=step + 1),
                scoring(self.scorer, step=step) as scores,
            ):
                for group in self.sampler.generate(
                    prompts, num_samples=num_samples, settings=settings, check=check
                ):
                    scores.add(group)
            with clock.stage("reward"):
                batch.add(prompts, scores.finish())
        return self._with_replay(batch.build(epoch=self.prompts.epoch), step)

    def _with_replay(self, batch: StepBatch, step: int) -> StepBatch:
        """Tell the curriculum of the batch, add groups to train on again, and keep rare ones for later."""
        config, rows = self.config, batch.scored.rows
        rates = success_rates(rows, config.accuracy_reward, config.evaluation.right_at)
        self.prompts.observe(rates)
        if self.replay is None:
            return replace(batch, prompts=self.prompts.metrics)
        replayed = self.replay.take(step, besides={row.rollout.group for row in rows})
        self.replay.add(batch.trained, rates, step=step)
        found = {
            **self.prompts.metrics,
            "data/replayed_groups": float(len({r.rollout.group for r in replayed})),
        }
        return replace(batch, replayed=replayed, prompts=found)
