"""One step's batch: one round of prompts, or several until enough groups are informative.

Dynamic sampling (DAPO, arXiv:2503.14476, sec. 3.2): groups whose advantages are all 0 are replaced by
another prompt's.

Departures: the paper selects groups by accuracy (neither all right nor all wrong); here the advantage
estimator decides, so any reward works. A round samples exactly the missing prompts, so no informative group
is discarded. After `algorithm.max_refills` more rounds, or once the step has sampled every training row, it
trains on the groups it has.
"""

from collections.abc import Sequence
from dataclasses import replace

from verl_lite.engine.algorithm.advantages import informative_groups
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.types import PromptRow, StepBatch
from verl_lite.plugins import ScoredBatch
from verl_lite.plugins.composite import batch_metrics


class BatchBuilder:
    """Collects rounds of scored rollouts until the batch is full. `num_rows` counts the training rows."""

    def __init__(self, config: TrainConfig, *, num_rows: int) -> None:
        self._config = config
        self._num_rows = num_rows
        self._rounds: list[ScoredBatch] = []
        self._groups: set[str] = set()
        self.prompts: list[PromptRow] = []

    @property
    def num_missing(self) -> int:
        """How many prompts to sample in the next round; 0 when the batch is full."""
        wanted, algorithm = self._config.rollout.num_prompts, self._config.algorithm
        if not self._rounds:
            return wanted
        if not algorithm.dynamic_sampling or len(self._rounds) > algorithm.max_refills:
            return 0
        return min(wanted - len(self._groups), self._num_rows - len(self.prompts))

    def add(self, prompts: Sequence[PromptRow], scored: ScoredBatch) -> None:
        """Add the round that sampled `prompts`."""
        self.prompts += prompts
        scored = _in_order(scored, prompts, combine=self._config.scoring.combine)
        self._rounds.append(scored)
        if self._config.algorithm.dynamic_sampling:
            self._groups |= informative_groups(scored.rows, self._config.algorithm)
        else:
            self._groups |= {prompt.id for prompt in prompts}

    def build(self, *, epoch: int) -> StepBatch:
        """The batch of all rounds."""
        return StepBatch(
            scored=_merged(self._rounds, combine=self._config.scoring.combine),
            groups=frozenset(self._groups),
            num_rounds=len(self._rounds),
            epoch=epoch,
        )


def _in_order(scored: ScoredBatch, prompts: Sequence[PromptRow], *, combine: str) -> ScoredBatch:
    """The rows in the order of the prompts, as results (sums of floats) must not depend on timing."""
    place = {prompt.id: index for index, prompt in enumerate(prompts)}
    rows = sorted(scored.rows, key=lambda row: (place[row.rollout.group], row.rollout.sample_index))
    if all(one is other for one, other in zip(rows, scored.rows, strict=True)):
        return scored
    return replace(scored, rows=rows, metrics={**scored.metrics, **batch_metrics(rows, combine=combine)})


def _merged(rounds: Sequence[ScoredBatch], *, combine: str) -> ScoredBatch:
    """The rounds as one batch. Execution counts are summed; latencies are the slowest round's."""
    if len(rounds) == 1:
        return rounds[0]
    rows = [row for batch in rounds for row in batch.rows]
    metrics = batch_metrics(rows, combine=combine)
    for name in rounds[0].metrics.keys() - metrics.keys():  # the execution's
        values = [batch.metrics[name] for batch in rounds]
        metrics[name] = max(values) if name.endswith("_s") else sum(values)
    slowest = {
        name: sorted((row for batch in rounds for row in batch.slowest[name]), reverse=True)[: len(first)]
        for name, first in rounds[0].slowest.items()
    }
    return ScoredBatch(rows=rows, metrics=metrics, slowest=slowest)
