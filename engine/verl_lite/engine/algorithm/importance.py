"""Importance weights: sampler and learner compute different probabilities from the same weights.

The weight is p_old / p_sampler, where old is the learner at the start of the step. It is truncated (TIS) or
masked (0 outside [low, high]: IcePop per token, MIS per sequence), and carries no gradient. A sequence's
weight is the product over its counted tokens, or their geometric mean. On top, `reject` drops tokens or
sequences by an estimate of the divergence. What is dropped still counts in the denominators. The mismatch is
always measured, corrected or not: the k3 estimate of KL(sampler || learner), and the mean |difference| of the
log-probabilities.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from verl_lite.engine.algorithm.losses import MAX_LOG_RATIO, LossInput, counted, sequence_mean
from verl_lite.engine.config.importance import ImportanceConfig, RejectConfig
from verl_lite.engine.types import TrainingSample
from verl_lite.errors import TrainingError


def importance_weights(
    sampler_logprobs_N: Tensor, batch: LossInput, config: ImportanceConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """weights_N (1 where uncorrected), and the number of counted tokens whose weight was changed."""
    log_weight_N = counted((batch.old_logprobs_N - sampler_logprobs_N).detach(), batch.mask_N)
    weight_N, changed_N = torch.ones_like(log_weight_N), torch.zeros_like(log_weight_N, dtype=torch.bool)
    if config.mode != "off":
        if config.level != "token":
            over = "sum" if config.level == "sequence" else "mean"
            log_weight_N = over_sequences(log_weight_N, batch, over)
        weight_N = log_weight_N.clamp(max=MAX_LOG_RATIO).exp()
        changed_N = weight_N > config.high
    if config.mode == "truncate":
        weight_N = weight_N.clamp(max=config.high)
    elif config.mode == "mask":
        changed_N = changed_N | (weight_N < config.low)
        weight_N = torch.where(changed_N, 0.0, weight_N)
    for rule in config.reject:
        dropped_N = _rejected(sampler_logprobs_N, batch, rule)
        changed_N, weight_N = changed_N | dropped_N, torch.where(dropped_N, 0.0, weight_N)
    return weight_N, {"policy/importance_changed_fraction": (changed_N * batch.mask_N).sum()}


STATISTICS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda log_r_N: log_r_N,
    "k2": lambda log_r_N: log_r_N.square() / 2,
    "k3": lambda log_r_N: log_r_N.clamp(max=MAX_LOG_RATIO).exp() - 1 - log_r_N,
}


def _rejected(sampler_logprobs_N: Tensor, batch: LossInput, rule: RejectConfig) -> Tensor:
    learner_N = batch.old_logprobs_N if rule.learner == "old" else batch.logprobs_N
    log_r_N = counted((learner_N - sampler_logprobs_N).detach(), batch.mask_N)
    value_N = STATISTICS[rule.statistic](log_r_N)
    if rule.over != "token":
        value_N = over_sequences(value_N, batch, rule.over)
    low, high = rule.low, math.inf if rule.high is None else rule.high
    if rule.statistic == "k1":
        low, high = (math.log(low) if low else -math.inf), math.log(high)
    outside_N = (value_N < low) | (value_N > high)
    return outside_N & (batch.advantages_N < 0) if rule.only_negative else outside_N


def over_sequences(values_N: Tensor, batch: LossInput, over: str) -> Tensor:
    """Per token the sum, mean, min or max over its sequence's counted tokens."""
    if over == "mean":
        return sequence_mean(values_N, batch)[batch.sequence_N]
    if over == "sum":
        totals_S = values_N.new_zeros(batch.num_sequences)
        return totals_S.index_add(0, batch.sequence_N, counted(values_N, batch.mask_N))[batch.sequence_N]
    start = math.inf if over == "min" else -math.inf
    ends_S = values_N.new_full((batch.num_sequences,), start)
    values_N = torch.where(batch.mask_N > 0, values_N, start)
    return ends_S.scatter_reduce(0, batch.sequence_N, values_N, f"a{over}")[batch.sequence_N]


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
    if lacking and config.is_on:
        raise TrainingError(
            "algorithm.importance weighs samples by the sampler's log-probabilities, but "
            f"{lacking} of {len(samples)} came without: use a sampler that reports them, or leave it out"
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
