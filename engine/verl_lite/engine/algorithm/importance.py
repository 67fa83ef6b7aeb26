"""Importance weights: sampler and learner compute different probabilities from the same weights.

The weight is p_old / p_sampler, where old is the learner at the start of the step. It is truncated (TIS) or
masked (0 outside [low, high]), per token or per sequence, and carries no gradient. A sequence's weight is
the product over its counted tokens. The mismatch is always measured, corrected or not: the k3
estimate of KL(sampler || learner), and the mean |difference| of the log-probabilities.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from verl_lite.engine.algorithm.losses import MAX_LOG_RATIO, LossInput, counted
from verl_lite.engine.config.algorithm import ImportanceConfig
from verl_lite.engine.types import TrainingSample
from verl_lite.errors import TrainingError


def importance_weights(
    sampler_logprobs_N: Tensor, batch: LossInput, config: ImportanceConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """weights_N (1 where uncorrected), and the number of counted tokens whose weight was changed."""
    log_weight_N = counted((batch.old_logprobs_N - sampler_logprobs_N).detach(), batch.mask_N)
    if config.level == "sequence":
        totals_S = log_weight_N.new_zeros(batch.num_sequences).index_add(0, batch.sequence_N, log_weight_N)
        log_weight_N = totals_S[batch.sequence_N]
    weight_N = log_weight_N.clamp(max=MAX_LOG_RATIO).exp()
    if config.mode == "truncate":
        changed_N = weight_N > config.high
        weight_N = weight_N.clamp(max=config.high)
    else:
        changed_N = (weight_N < config.low) | (weight_N > config.high)
        weight_N = torch.where(changed_N, 0.0, weight_N)
    return weight_N, {"policy/importance_changed_fraction": (changed_N * batch.mask_N).sum()}


def mismatch_metrics(sampler_logprobs_N: Tensor, old_logprobs_N: Tensor, mask_N: Tensor) -> dict[str, Tensor]:
    """Sums over the counted tokens: the k3 estimate of KL(sampler || learner), and |difference|."""
    log_r_N = counted((old_logprobs_N - sampler_logprobs_N).detach(), mask_N).clamp(max=MAX_LOG_RATIO)
    return {
        "policy/kl_sampler_trainer": (log_r_N.exp() - 1 - log_r_N).sum(),
        "policy/logprob_difference": log_r_N.abs().sum(),
    }


def has_sampler_logprobs(sample: TrainingSample) -> bool:
    """Whether every token has the sampler's log-probability, or none counts in the policy's loss."""
    return len(sample.sampler_logprobs_T) == len(sample.completion_ids) or not sample.is_in_policy


def refuse_without_logprobs(samples: Sequence[TrainingSample], config: ImportanceConfig) -> None:
    """Raise TrainingError if `config` weighs samples and some lack the sampler's log-probabilities."""
    lacking = sum(not has_sampler_logprobs(sample) for sample in samples)
    if lacking and config.mode != "off":
        raise TrainingError(
            f"algorithm.importance.mode={config.mode} weighs samples by the sampler's log-probabilities, but "
            f"{lacking} of {len(samples)} came without: use a sampler that reports them, or mode off"
        )


def mismatch_means(
    samples: Sequence[TrainingSample], old_logprobs: Sequence[Sequence[float]]
) -> dict[str, float]:
    """`mismatch_metrics` per counted token; every sample must have the sampler's log-probabilities."""

    def flat(lists: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor([value for one in lists for value in one], dtype=torch.float64)

    mask_N = flat([sample.loss_mask_T for sample in samples])
    sums = mismatch_metrics(flat([s.sampler_logprobs_T for s in samples]), flat(old_logprobs), mask_N)
    return {name: float(total / mask_N.sum()) for name, total in sums.items()}
