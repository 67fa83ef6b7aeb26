"""The objective of one micro-batch: policy loss x importance weight + KL - entropy, weighted.

    L = sum_n w_n [ i_n l_n + beta KL_n - eta H_n ]

w are the global token weights, i the importance weights (no gradient), l the policy loss, H the entropy.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from verl_lite.engine.algorithm.importance import importance_weights, mismatch_metrics
from verl_lite.engine.algorithm.kl import kl_estimate
from verl_lite.engine.algorithm.losses import (
    LossInput,
    Metrics,
    PolicyLoss,
    counted,
    only_counted,
    ratio,
)
from verl_lite.engine.config.algorithm import AlgorithmConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the objective reads besides the policy loss's input, one value per token.

    `weights_N` are the global token weights, 0 for tokens that do not count. `sampler_logprobs_N` is None
    if the sampler reported none, `ref_logprobs_N` if there is no reference. A KL in the reward is measured
    but not added to the loss.
    """

    weights_N: Tensor
    entropy_N: Tensor
    sampler_logprobs_N: Tensor | None = None
    ref_logprobs_N: Tensor | None = None


def objective(
    batch: LossInput, terms: Terms, *, policy_loss: PolicyLoss, config: AlgorithmConfig, kl_coefficient: float
) -> tuple[Tensor, Metrics]:
    """The loss to backpropagate, and metrics summed over the counted tokens (`loss/*` are weighted sums)."""
    batch, terms = only_counted(batch), _only_counted(terms, batch.mask_N)
    loss_N, metrics = policy_loss(batch)
    if terms.sampler_logprobs_N is not None:
        metrics |= mismatch_metrics(terms.sampler_logprobs_N, batch.old_logprobs_N, batch.mask_N)
        if config.importance.mode != "off":
            weight_N, changed = importance_weights(terms.sampler_logprobs_N, batch, config.importance)
            loss_N = loss_N * weight_N
            metrics |= changed
    loss = (loss_N * terms.weights_N).sum()
    metrics["loss/policy"] = loss.detach()
    metrics["policy/entropy"] = (terms.entropy_N * batch.mask_N).sum().detach()
    if terms.ref_logprobs_N is not None:
        kl_N = kl_estimate(batch.logprobs_N, terms.ref_logprobs_N, config.kl.estimator)
        metrics["policy/kl_reference"] = (kl_N * batch.mask_N).sum().detach()
        if config.kl.in_loss:
            if config.kl.ratio_weighted:
                kl_N = kl_N * ratio(batch)
            kl = kl_coefficient * (kl_N * terms.weights_N).sum()
            metrics["loss/kl"] = kl.detach()
            loss = loss + kl
    if config.entropy_bonus != 0.0:
        loss = loss - config.entropy_bonus * (terms.entropy_N * terms.weights_N).sum()
    return loss, metrics


def _only_counted(terms: Terms, mask_N: Tensor) -> Terms:
    """See losses.only_counted."""

    def optional(values_N: Tensor | None) -> Tensor | None:
        return None if values_N is None else counted(values_N, mask_N)

    return Terms(
        weights_N=counted(terms.weights_N, mask_N),
        entropy_N=counted(terms.entropy_N, mask_N),
        sampler_logprobs_N=optional(terms.sampler_logprobs_N),
        ref_logprobs_N=optional(terms.ref_logprobs_N),
    )


def step_means(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over the optimiser steps; for `policy/` metrics, over the steps that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    for metrics in steps:
        for name, value in metrics.items():
            values[name].append(value)
    counts = {name: len(v) if name.startswith("policy/") else len(steps) for name, v in values.items()}
    return {name: sum(v) / counts[name] for name, v in values.items()}
