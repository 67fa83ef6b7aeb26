"""The objective of one micro-batch: a weighted sum of loss components.

    L = sum_c sum_n w_cn l_cn        w_cn = weight of token n in component c / the component's denominator

    policy          importance weight (no gradient) x policy loss
    entropy         -eta x entropy
    reference_kl    beta x KL to the reference
    kl_cov          |log p - log p_old| of the tokens that lower the entropy most, per token of the policy
    cross_entropy   -log p: demonstrations, saved rollouts, and own samples that were right
    distillation    KL(policy, teacher) on the policy's rollouts, see distillation.py
    forward_kl      KL(teacher, policy) on the teacher's saved rollouts

Denominators are counted per component over the global mini-batch (`component_weights`), so tokens of one
component never dilute another.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from verl_lite.engine.algorithm.distillation import sampled_divergence, token_kl
from verl_lite.engine.algorithm.importance import importance_weights, mismatch_metrics
from verl_lite.engine.algorithm.kl import kl_estimate
from verl_lite.engine.algorithm.losses import (
    LossInput,
    Metrics,
    PolicyLoss,
    counted,
    only_counted,
    ratio,
    token_weights,
)
from verl_lite.engine.config.algorithm import AlgorithmConfig
from verl_lite.engine.types import OF_THE_POLICY, ComponentName, TrainingSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the objective reads besides the policy loss's input, one value per token.

    `weights` are the global token weights by component, 0 for tokens that are not in it.
    `sampler_logprobs_N` is None if the sampler reported none, `ref_logprobs_N` if there is no reference. A KL
    in the reward is measured but not added to the loss. `teacher_NK` are a teacher's log-probabilities,
    `student_NK` the policy's of the same tokens; None: K is 1, and they are those of the sampled tokens.
    """

    weights: Mapping[ComponentName, Tensor]
    entropy_N: Tensor
    sampler_logprobs_N: Tensor | None = None
    ref_logprobs_N: Tensor | None = None
    teacher_NK: Tensor | None = None
    student_NK: Tensor | None = None
    teacher_is_complete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveOptions:
    """The choices of the config; `kl_coefficient` is the controller's current one."""

    policy_loss: PolicyLoss
    config: AlgorithmConfig
    kl_coefficient: float
    entropy_bonus: float


Component = Callable[[LossInput, Terms, ObjectiveOptions], tuple[Tensor | None, Metrics]]


def objective(
    batch: LossInput,
    terms: Terms,
    *,
    policy_loss: PolicyLoss,
    config: AlgorithmConfig,
    kl_coefficient: float,
    entropy_bonus: float | None = None,
) -> tuple[Tensor, Metrics]:
    """The loss to backpropagate, and metrics: sums over the component's tokens (`loss/*` are weighted).

    `kl_coefficient` and `entropy_bonus` are the controllers' current ones (None: the config's bonus).
    """
    bonus = config.entropy_bonus if entropy_bonus is None else entropy_bonus
    options = ObjectiveOptions(
        policy_loss=policy_loss, config=config, kl_coefficient=kl_coefficient, entropy_bonus=bonus
    )
    loss, metrics = batch.logprobs_N.new_zeros(()), Metrics()
    for name, weights_N in terms.weights.items():
        loss_N, found = COMPONENTS[name](batch, terms, options)
        metrics |= found
        if loss_N is not None:
            part = (loss_N * counted(weights_N, weights_N)).sum()
            metrics[METRICS[name]] = part.detach()
            loss = loss + part
    return loss, metrics


def _policy(batch: LossInput, terms: Terms, options: ObjectiveOptions) -> tuple[Tensor, Metrics]:
    batch, config = only_counted(batch), options.config
    loss_N, metrics = options.policy_loss(batch)
    if terms.sampler_logprobs_N is not None:
        metrics |= mismatch_metrics(terms.sampler_logprobs_N, batch.old_logprobs_N, batch.mask_N)
        if config.importance.is_on:
            weight_N, changed = importance_weights(terms.sampler_logprobs_N, batch, config.importance)
            loss_N = loss_N * weight_N
            metrics |= changed
    return loss_N, metrics


def _entropy(batch: LossInput, terms: Terms, options: ObjectiveOptions) -> tuple[Tensor | None, Metrics]:
    entropy_N, bonus = counted(terms.entropy_N, batch.mask_N), options.entropy_bonus
    return -bonus * entropy_N if bonus else None, {"policy/entropy": entropy_N.sum().detach()}


def _reference_kl(batch: LossInput, terms: Terms, options: ObjectiveOptions) -> tuple[Tensor | None, Metrics]:
    if terms.ref_logprobs_N is None:
        return None, {}
    batch, kl = only_counted(batch), options.config.kl
    kl_N = kl_estimate(batch.logprobs_N, counted(terms.ref_logprobs_N, batch.mask_N), kl.estimator)
    metrics = {"policy/kl_reference": kl_N.sum().detach()}
    if not kl.in_loss:
        return None, metrics
    if kl.ratio_weighted:
        kl_N = kl_N * ratio(batch)
    return options.kl_coefficient * kl_N, metrics


def _kl_cov(batch: LossInput, terms: Terms, options: ObjectiveOptions) -> tuple[Tensor, Metrics]:
    batch = only_counted(batch)
    return (batch.logprobs_N - batch.old_logprobs_N).abs(), {}


def _cross_entropy(batch: LossInput, terms: Terms, options: ObjectiveOptions) -> tuple[Tensor, Metrics]:
    return -counted(batch.logprobs_N, terms.weights["cross_entropy"]), {}


def _distillation(batch: LossInput, terms: Terms, options: ObjectiveOptions) -> tuple[Tensor, Metrics]:
    assert terms.teacher_NK is not None
    weights_N = terms.weights["distillation"]
    if terms.student_NK is None:
        return counted(sampled_divergence(batch.logprobs_N, terms.teacher_NK[:, 0]), weights_N), {}
    kl_N = token_kl(terms.student_NK, terms.teacher_NK, is_complete=terms.teacher_is_complete)
    return counted(kl_N, weights_N), {}


def _forward_kl(batch: LossInput, terms: Terms, options: ObjectiveOptions) -> tuple[Tensor, Metrics]:
    assert terms.teacher_NK is not None
    assert terms.student_NK is not None
    kl_N = token_kl(terms.teacher_NK, terms.student_NK, is_complete=terms.teacher_is_complete)
    return counted(kl_N, terms.weights["forward_kl"]), {}


COMPONENTS: Mapping[ComponentName, Component] = {
    "policy": _policy,
    "entropy": _entropy,
    "reference_kl": _reference_kl,
    "kl_cov": _kl_cov,
    "cross_entropy": _cross_entropy,
    "distillation": _distillation,
    "forward_kl": _forward_kl,
}
METRICS: Mapping[ComponentName, str] = {
    "policy": "loss/policy",
    "entropy": "loss/entropy",
    "reference_kl": "loss/kl",
    "kl_cov": "loss/kl_cov",
    "cross_entropy": "loss/cross_entropy",
    "distillation": "loss/distillation",
    "forward_kl": "loss/forward_kl",
}


def component_weights(
    samples: Sequence[TrainingSample], config: AlgorithmConfig
) -> dict[ComponentName, list[float]]:
    """Per component, the weight of each sample's tokens in the mini-batch `samples`.

    What is per token of the policy is aggregated as the config says, the others over their own tokens
    (`token_mean`). Components without a token are left out.
    """
    own = partial(token_weights, aggregate=config.aggregate, norm_tokens=config.norm_tokens)
    every = partial(token_weights, aggregate="token_mean")
    found: dict[ComponentName, list[float]] = {}
    for name in COMPONENTS:
        per_policy_token = name in (*OF_THE_POLICY, "kl_cov")
        lengths = [
            sum(weight > 0 for weight in (sample.loss_mask_T if per_policy_token else sample.component(name)))
            for sample in samples
        ]
        if any(lengths) and any(sample.component(name) for sample in samples):
            found[name] = (own if per_policy_token else every)(lengths)
    return found


def step_means(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over the optimiser steps; for `policy/` metrics, over the steps that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    for metrics in steps:
        for name, value in metrics.items():
            values[name].append(value)
    counts = {name: len(v) if name.startswith("policy/") else len(steps) for name, v in values.items()}
    return {name: sum(v) / counts[name] for name, v in values.items()}
