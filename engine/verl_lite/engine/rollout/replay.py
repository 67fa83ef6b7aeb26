"""Groups of prompts that are rarely solved, and were, are trained on again in later steps.

A replayed group keeps the log-probabilities it was sampled with, so the importance weight p_old / p_sampler
of `algorithm.importance` is the right one for its age; the ratio of the loss is to the policy at the start of
the step, as for fresh samples (decoupled PPO, arXiv:2110.00641). Its advantages come from the recorded
rewards of the whole group.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from verl_lite.engine.config.curriculum import ReplayConfig
from verl_lite.plugins import ScoredRollout


@dataclass(frozen=True, slots=True)
class _Kept:
    step: int
    rows: Sequence[ScoredRollout]


class ReplayBuffer:
    """The kept groups by prompt, the oldest first; `take` depends on the seed and the step alone."""

    def __init__(self, config: ReplayConfig, *, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._kept: dict[str, _Kept] = {}

    def take(self, step: int, *, besides: Collection[str]) -> list[ScoredRollout]:
        """Rows of up to `num_prompts` groups that are not too old, and not of the prompts `besides`."""
        oldest = step - self._config.max_age_steps
        self._kept = {name: kept for name, kept in self._kept.items() if kept.step >= oldest}
        names = [name for name in self._kept if name not in besides]
        rng = random.Random(f"replay:{self._seed}:{step}")
        chosen = rng.sample(names, min(self._config.num_prompts, len(names)))
        return [row for name in chosen for row in self._kept[name].rows]

    def add(self, rows: Sequence[ScoredRollout], rates: Mapping[str, float], *, step: int) -> None:
        """Keep the groups that were solved, but rarely; a newer group replaces the prompt's older one."""
        groups: dict[str, list[ScoredRollout]] = {}
        for row in rows:
            groups.setdefault(row.rollout.group, []).append(row)
        for name, group in groups.items():
            if 0 < rates.get(name, 0.0) <= self._config.rare_at and all(
                row.rollout.logprobs for row in group
            ):
                self._kept.pop(name, None)
                self._kept[name] = _Kept(step, group)
        while len(self._kept) > self._config.capacity:
            del self._kept[next(iter(self._kept))]

    @property
    def rows(self) -> list[ScoredRollout]:
        """Everything kept, for a checkpoint."""
        return [row for kept in self._kept.values() for row in kept.rows]

    @property
    def steps(self) -> dict[str, int]:
        """The step of each kept group, in order."""
        return {name: kept.step for name, kept in self._kept.items()}

    def restore(self, rows: Sequence[ScoredRollout], steps: Mapping[str, int]) -> None:
        """Continue from `rows` and `steps`."""
        groups: dict[str, list[ScoredRollout]] = {name: [] for name in steps}
        for row in rows:
            groups[row.rollout.group].append(row)
        self._kept = {name: _Kept(step, groups[name]) for name, step in steps.items()}
