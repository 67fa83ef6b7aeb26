"""Keeping the entropy of the policy: an adaptive bonus, and limits on the tokens that lower it most.

The entropy falls by the covariance of log-probability and advantage (arXiv:2505.22617, theorem 1), and a few
tokens carry most of it. Clip-Cov takes their gradient away; KL-Cov adds |log p - log p_old| to their loss.

Departures: the covariance uses the log-probabilities at the start of the step (or the sampler's), over the
whole batch, so that it does not depend on micro-batches; Clip-Cov does not leave out tokens that the ratio's
clip would take as well. The bonus follows Skywork-OR1 (arXiv:2505.22312, sec. 3.3), which switches it off
above the target; here it falls by `step` there.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from verl_lite.engine.config.algorithm import EntropyConfig
from verl_lite.engine.types import TrainingSample
from verl_lite.errors import TrainingError

Place = tuple[int, int]  # (sample, token)


@dataclass
class EntropyController:
    """The bonus: fixed, or moved so that the entropy per token stays at `target`."""

    config: EntropyConfig
    bonus: float

    def update(self, entropy_per_token: float) -> None:
        """One `step` up below the target, one down above it, within [0, max_bonus]."""
        if self.config.target is not None:
            step = self.config.step if entropy_per_token < self.config.target else -self.config.step
            self.bonus = min(max(self.bonus + step, 0.0), self.config.max_bonus)

    def state_dict(self) -> dict[str, float]:
        return {"bonus": self.bonus}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.bonus = float(state["bonus"])


def limit_covariance(
    samples: Sequence[TrainingSample], config: EntropyConfig, *, seed: int
) -> list[TrainingSample]:
    """The samples with what Clip-Cov or KL-Cov does at their tokens of highest covariance.

    `seed` decides which of Clip-Cov's candidates are taken. Raises TrainingError without log-probabilities.
    """
    if config.covariance == "off":
        return list(samples)
    covariances = token_covariances(samples)
    count = max(int(config.fraction * len(covariances)), 1)
    if config.covariance == "clip":
        within = [place for place, value in covariances.items() if config.low < value < config.high]
        chosen = set(random.Random(seed).sample(within, min(count, len(within))))
        return [
            replace(s, advantages_T=[0.0 if (i, t) in chosen else a for t, a in enumerate(s.advantages_T)])
            for i, s in enumerate(samples)
        ]
    chosen = set(sorted(covariances, key=lambda place: -covariances[place])[:count])
    return [
        replace(
            s,
            components={
                **s.components,
                "kl_cov": [config.coefficient * ((i, t) in chosen) for t in range(len(s.completion_ids))],
            },
        )
        for i, s in enumerate(samples)
    ]


def token_covariances(samples: Sequence[TrainingSample]) -> dict[Place, float]:
    """(A - mean A)(log p - mean log p) of every token that counts in the policy's loss."""
    rows = {i: s.old_logprobs_T or s.sampler_logprobs_T for i, s in enumerate(samples) if s.is_in_policy}
    if any(len(logprobs_T) != len(samples[i].completion_ids) for i, logprobs_T in rows.items()):
        raise TrainingError(
            "algorithm.entropy.covariance needs the sampler's log-probability of every token: use a sampler "
            "that reports them, or covariance: off"
        )
    places = [(i, t) for i in rows for t, counts in enumerate(samples[i].loss_mask_T) if counts]
    if not places:
        return {}
    mean_logprob = fmean(rows[i][t] for i, t in places)
    if not math.isfinite(mean_logprob):
        raise TrainingError("algorithm.entropy.covariance: a log-probability of the sampler is nan or inf")
    mean_advantage = fmean(samples[i].advantages_T[t] for i, t in places)
    return {
        (i, t): (samples[i].advantages_T[t] - mean_advantage) * (rows[i][t] - mean_logprob) for i, t in places
    }
