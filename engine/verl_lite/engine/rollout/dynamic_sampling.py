"""The rollouts of one step: one round of prompts, or several until enough groups have something to teach.

Dynamic sampling (DAPO, arXiv:2503.14476, sec. 3.2): a group whose advantages would all be 0 leaves the
update, and another prompt takes its place.

Departures: the paper judges groups by accuracy (neither all right nor all wrong), this by the advantage
estimator itself, so it fits every reward. A round samples just as many prompts as are missing, so nothing
informative is thrown away; after `algorithm.max_refills` further rounds, or when every training row has
been sampled once in this step, the update takes what there is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from verl_lite.engine.algorithm.advantages import informative_groups
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.prompts import PromptStream
from verl_lite.engine.types import PromptRow
from verl_lite.plugins import ScoredBatch, ScoredRollout
from verl_lite.plugins.composite import batch_metrics

__all__ = ["StepBatch", "fill_batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """Everything a step sampled; `groups` are those it trains on. `num_rounds` counts the first one too.

    `epoch` is where the prompts were taken. `seconds` is the time of stages that ran beside the trainer's.
    """

    scored: ScoredBatch
    groups: frozenset[str]
    num_rounds: int = 1
    epoch: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def trained(self) -> list[ScoredRollout]:
        """The rows of the groups that are trained on."""
        return [row for row in self.scored.rows if row.rollout.group in self.groups]

    @property
    def metrics(self) -> dict[str, float]:
        """The scores' metrics, over everything sampled, and what was kept of it."""
        return {
            **self.scored.metrics,
            "rollout/refills": float(self.num_rounds - 1),
            "rollout/groups_sampled": float(len({row.rollout.group for row in self.scored.rows})),
            "rollout/groups_trained": float(len(self.groups)),
        }


def fill_batch(
    sample: Callable[[Sequence[PromptRow]], ScoredBatch], prompts: PromptStream, config: TrainConfig
) -> StepBatch:
    """`sample` prompts until `rollout.num_prompts` groups are in; one round without dynamic sampling."""
    wanted, algorithm = config.rollout.num_prompts, config.algorithm
    taken = prompts.take(wanted)
    rounds = [sample(taken)]
    if not algorithm.dynamic_sampling:
        groups = {prompt.id for prompt in taken}
        return StepBatch(scored=rounds[0], groups=frozenset(groups), epoch=prompts.epoch)
    groups = informative_groups(rounds[0].rows, algorithm)
    while len(groups) < wanted and len(rounds) <= algorithm.max_refills:
        missing = min(wanted - len(groups), prompts.num_rows - len(taken))
        if missing == 0:
            break
        more = prompts.take(missing, besides=taken)
        rounds.append(sample(more))
        taken += more
        groups |= informative_groups(rounds[-1].rows, algorithm)
    scored = _together(rounds, combine=config.scoring.combine)
    return StepBatch(scored=scored, groups=frozenset(groups), num_rounds=len(rounds), epoch=prompts.epoch)


def _together(rounds: Sequence[ScoredBatch], *, combine: str) -> ScoredBatch:
    """The rounds as one batch. Counts of the execution add up; of its latencies the worst round's stand."""
    if len(rounds) == 1:
        return rounds[0]
    rows = [row for batch in rounds for row in batch.rows]
    metrics = batch_metrics(rows, combine=combine)
    for name in rounds[0].metrics.keys() - metrics.keys():  # those of the execution
        values = [batch.metrics[name] for batch in rounds]
        metrics[name] = max(values) if name.endswith("_s") else sum(values)
    slowest = {
        name: sorted((row for batch in rounds for row in batch.slowest[name]), reverse=True)[: len(first)]
        for name, first in rounds[0].slowest.items()
    }
    return ScoredBatch(rows=rows, metrics=metrics, slowest=slowest)
