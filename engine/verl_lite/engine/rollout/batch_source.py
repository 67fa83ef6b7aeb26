"""Where the next scored batch comes from: the trainer's one question to whatever samples.

`InTurn` answers it by sampling now, with the newest weights. overlap.py has the answers of runs that
sample while they train.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.prompts import PromptStream
from verl_lite.engine.observe.timeline import StageClock
from verl_lite.engine.rollout.dynamic_sampling import StepBatch, fill_batch
from verl_lite.engine.rundir.interrupt import StopRequested
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.types import PromptRow, Sampler
from verl_lite.plugins import SamplerSettings, ScoredBatch, ScoredRollout
from verl_lite.plugins.composite import batch_metrics
from verl_lite.plugins.scorer import Scorer

__all__ = ["Batches", "BatchesState", "InTurn", "Rounds", "rollout_settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchesState:
    """What a checkpoint keeps: plain data, and the rollouts that were sampled but not trained on yet."""

    plain: Mapping[str, Any]
    rows: Sequence[ScoredRollout] = field(default=())


class Batches(Protocol):
    """The batches of a run, one a step. Only the trainer's thread calls it."""

    def take(self, step: int, clock: StageClock) -> StepBatch:
        """The batch that turns version `step` into the next one; its time goes to `clock`.

        Raises what went wrong while sampling it, and StopRequested after a Ctrl-C.
        """
        ...

    def settle(self, clock: StageClock) -> None:
        """Come to where the sampler may take new weights. Raises what went wrong in the meantime."""
        ...

    def state(self) -> BatchesState:
        """What `restore` needs to go on from here."""
        ...

    def restore(self, state: BatchesState) -> None:
        """Go on from `state`; whatever was being sampled is given up."""
        ...

    def close(self) -> None:
        """Give up what is being sampled; nothing of it runs on afterwards. Raises nothing."""
        ...


class Rounds:
    """Samples prompts once, with the rewards computed while others still generate.

    `check` is called several times a second and may raise to stop.
    """

    def __init__(
        self, sampler: Sampler, scorer: Scorer, config: TrainConfig, *, check: Callable[[], None]
    ) -> None:
        self._sampler = sampler
        self._scorer = scorer
        self._config = config
        self._check = check

    def sample(self, clock: StageClock, step: int, prompts: Sequence[PromptRow]) -> ScoredBatch:
        """One round of the batch of `step`; rows in the order of the prompts."""
        settings = rollout_settings(self._config, step)
        num_samples = self._config.rollout.num_samples
        with clock.stage("rollout"), clear_memory_errors("generating", step=step + 1):
            session = self._scorer.start(step=step)
            try:
                for group in self._sampler.generate(
                    prompts, num_samples=num_samples, settings=settings, check=self._check
                ):
                    session.add(group)
            except BaseException:
                session.cancel()
                raise
        with clock.stage("reward"):
            return _in_order(session.finish(), prompts, combine=self._config.scoring.combine)


class InTurn:
    """Synchronous: each batch is sampled when it is asked for, by the weights it will change."""

    def __init__(
        self,
        sampler: Sampler,
        scorer: Scorer,
        config: TrainConfig,
        prompts: PromptStream,
        *,
        check: Callable[[], None],
    ) -> None:
        self._sampler = sampler
        self._rounds = Rounds(sampler, scorer, config, check=check)
        self._config = config
        self._prompts = prompts

    def take(self, step: int, clock: StageClock) -> StepBatch:
        position = self._prompts.state_dict()
        try:
            batch = fill_batch(partial(self._rounds.sample, clock, step), self._prompts, self._config)
        except StopRequested:
            self._prompts.load_state_dict(position)  # these prompts were not trained on
            raise
        with clock.stage("update"):  # whose memory it makes room for
            self._sampler.sleep()
        return batch

    def settle(self, clock: StageClock) -> None:
        """The sampler rests whenever the trainer works."""

    def state(self) -> BatchesState:
        return BatchesState(plain={"prompts": self._prompts.state_dict()})

    def restore(self, state: BatchesState) -> None:
        self._prompts.load_state_dict(state.plain["prompts"])

    def close(self) -> None:
        """Nothing runs."""


def rollout_settings(config: TrainConfig, batch: int | str) -> SamplerSettings:
    """How the batch is sampled; its seed follows from the run's and from which batch it is."""
    return config.rollout.settings(seed=derive_seed(config.seed, "rollout", batch))


def _in_order(scored: ScoredBatch, prompts: Sequence[PromptRow], *, combine: str) -> ScoredBatch:
    """Rows in the order of the prompts: groups end in any order, and nothing must depend on it.

    The metrics neither: sums of floats do, so they are taken again where the order was another.
    """
    place = {prompt.id: index for index, prompt in enumerate(prompts)}
    rows = sorted(scored.rows, key=lambda row: (place[row.rollout.group], row.rollout.sample_index))
    if all(one is other for one, other in zip(rows, scored.rows, strict=True)):
        return scored
    return replace(scored, rows=rows, metrics={**scored.metrics, **batch_metrics(rows, combine=combine)})
