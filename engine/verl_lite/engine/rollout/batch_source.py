"""When batches are made: `SyncSource` on demand, the other sources while the learner trains.

Version v is the weights after v updates; the batch of step t turns version t into t + 1.

    SyncSource      version t samples batch t
    PrefetchSource  version t - 1 samples batch t during update t - 1; version 0 also samples batch 0
    AsyncSource     batches are cut from a stream of groups, sampled under changing weights
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.stream import Prompts
from verl_lite.engine.observe.timeline import StageClock
from verl_lite.engine.rundir.interrupt import StopRequested
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.types import Sampler, StepBatch
from verl_lite.plugins import SamplerSettings, ScoredRollout


class MakeBatch(Protocol):
    """Next prompts, generate, score: makes the batch of `step`. An exception from `check` ends it."""

    def __call__(self, step: int, clock: StageClock, *, check: Callable[[], None]) -> StepBatch: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """A source's part of a checkpoint: plain data, and rollouts sampled but not yet trained on."""

    plain: Mapping[str, Any]
    rows: Sequence[ScoredRollout] = field(default=())


class BatchSource(Protocol):
    """The batches of a run, one per step. Only the trainer's thread calls it."""

    def next(self, step: int, clock: StageClock) -> StepBatch:
        """The batch that turns version `step` into the next; timed by `clock`.

        Raises errors of the sampling, and StopRequested after Ctrl-C.
        """

    def drain(self, clock: StageClock) -> None:
        """Wait until the sampler accepts new weights. Raises errors of the sampling."""

    def state(self) -> SourceState:
        """The state for `restore`."""

    def restore(self, state: SourceState) -> None:
        """Continue from `state`; cancels current sampling."""

    def close(self) -> None:
        """Cancel current sampling and wait until it has stopped. Raises nothing."""


class Cancelled(Exception):
    """Ends a cancelled sampling thread."""


@dataclass(frozen=True, slots=True)
class SyncSource:
    """Makes each batch on demand, with the weights that the step then updates."""

    make_batch: MakeBatch
    prompts: Prompts
    sampler: Sampler
    check: Callable[[], None]

    def next(self, step: int, clock: StageClock) -> StepBatch:
        position = self.prompts.state_dict()
        try:
            batch = self.make_batch(step, clock, check=self.check)
        except StopRequested:
            self.prompts.load_state_dict(position)  # these prompts were not trained on
            raise
        with clock.stage("update"):  # which needs the memory
            self.sampler.sleep()
        return batch

    def drain(self, clock: StageClock) -> None:
        """Nothing to wait for: the sampler is idle."""

    def state(self) -> SourceState:
        return SourceState(plain={"prompts": self.prompts.state_dict()})

    def restore(self, state: SourceState) -> None:
        self.prompts.load_state_dict(state.plain["prompts"])

    def close(self) -> None:
        """Nothing runs in the background."""


def rollout_settings(config: TrainConfig, batch: int | str) -> SamplerSettings:
    """The sampler settings of a batch, seeded by the run's seed and the batch's number or name."""
    return config.rollout.settings(seed=derive_seed(config.seed, "rollout", batch))
