"""DPO (arXiv:2305.18290): the policy as its own reward model, against a reference computed once.

A completion's implicit reward is beta * log(pi(y) / pi_ref(y)). The reference's log-probabilities are
computed before the first step, so training holds one model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.preference.config import DPOConfig
from verl_lite.engine.preference.data import Ranking
from verl_lite.engine.preference.loop import Scored
from verl_lite.engine.preference.losses import dpo_loss
from verl_lite.engine.types import TrainingSample


def sequence_logprobs(policy: Policy, samples: Sequence[TrainingSample]) -> Tensor:
    """log p of each whole completion, with gradients."""
    found: list[Tensor] = [torch.empty(0)] * len(samples)
    for micro in policy.micro_batches(samples):
        logprobs_N = policy.logprobs(micro)
        lengths = [len(samples[index].completion_ids) for index in micro.sample_indices]
        for index, part in zip(micro.sample_indices, torch.split(logprobs_N, lengths), strict=True):
            found[index] = part.sum()
    return torch.stack(found)


def with_reference(rankings: Sequence[Ranking], policy: Policy) -> list[Ranking]:
    """The rankings with `policy`'s log-probabilities as reference."""
    logprobs = policy.completion_logprobs([sample for ranking in rankings for sample in ranking.samples])
    sums = iter(sum(one) for one in logprobs)
    return [replace(ranking, reference_K=[next(sums) for _ in ranking.samples]) for ranking in rankings]


@dataclass(frozen=True, slots=True)
class DPOObjective:
    """The policy under DPO's loss; scores are the implicit rewards."""

    policy: Policy
    config: DPOConfig

    @property
    def model(self) -> nn.Module:
        return self.policy.model

    def score(self, samples: Sequence[TrainingSample]) -> Tensor:
        return sequence_logprobs(self.policy, samples)

    def loss(self, raw_K: Tensor, ranking: Ranking) -> Scored:
        ratios_K = raw_K - raw_K.new_tensor(ranking.reference_K)
        compared_K = ratios_K
        if self.config.length_normalised:
            compared_K = ratios_K / raw_K.new_tensor([len(s.completion_ids) for s in ranking.samples])
        better, worse = (list(side) for side in zip(*ranking.pairs, strict=True))
        losses_P = dpo_loss(
            compared_K[better],
            compared_K[worse],
            loss=self.config.loss,
            beta=self.config.beta,
            label_smoothing=self.config.label_smoothing,
        )
        return Scored(loss=losses_P.mean(), scores_K=self.config.beta * ratios_K)
