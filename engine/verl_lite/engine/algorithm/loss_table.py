"""The policy losses by their names in the config, and those that few use.

Departures from the papers:
- SAPO (arXiv:2511.20347): a sigmoid gate instead of a clip; the gate of advantage 0 does not matter.
- GMPO (arXiv:2507.20673): the geometric mean of token ratios that are clipped in log space, on the side that
  the advantage pushes to.
- DPPO (arXiv:2602.04879): tokens pushed out of a trust region in total variation or in KL, both of the binary
  distribution "this token or another", have no gradient; the others have that of CISPO, capped at
  `ratio_cap`. The region is around the policy that started the step, the paper's around the sampler's.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from verl_lite.engine.algorithm.losses import (
    MAX_LOG_RATIO,
    LossInput,
    Metrics,
    PolicyLoss,
    cispo,
    gspo,
    policy_gradient,
    ppo_clip,
    ratio,
    ratio_metrics,
    sequence_mean,
)
from verl_lite.engine.config.algorithm import AlgorithmConfig, PolicyLossName


def sapo(
    batch: LossInput, *, gate_positive: float = 1.0, gate_negative: float = 1.05
) -> tuple[Tensor, Metrics]:
    """-4/tau sigmoid(tau (r - 1)) A, with tau one of the gates by the sign of A.

    At ratio 1 the loss is -2/tau A, and its gradient that of REINFORCE. Ratio 2, tau 1, advantage 1 gives
    -4 / (1 + e^-1) = -2.9242.
    """
    ratio_N = ratio(batch)
    tau_N = torch.where(batch.advantages_N > 0, gate_positive, gate_negative)
    gate_N = torch.sigmoid(tau_N * (ratio_N - 1.0)) * 4.0 / tau_N
    return -gate_N * batch.advantages_N, ratio_metrics(ratio_N, torch.zeros_like(ratio_N), batch)


def gmpo(batch: LossInput, *, clip_low: float = 0.4, clip_high: float = 0.4) -> tuple[Tensor, Metrics]:
    """-A exp(mean of the sequence's clipped log-ratios); the bounds are [-low, high] in log space."""
    log_ratio_N = batch.logprobs_N - batch.old_logprobs_N
    bounded_N = log_ratio_N.clamp(-clip_low, clip_high)
    kept_N = torch.where(
        batch.advantages_N > 0, torch.minimum(log_ratio_N, bounded_N), torch.maximum(log_ratio_N, bounded_N)
    )
    ratio_N = sequence_mean(kept_N, batch).clamp(max=MAX_LOG_RATIO).exp()[batch.sequence_N]
    return -ratio_N * batch.advantages_N, ratio_metrics(ratio_N, kept_N != log_ratio_N, batch)


def dppo(
    batch: LossInput, *, divergence: str, clip_low: float, clip_high: float, ratio_cap: float = 20.0
) -> tuple[Tensor, Metrics]:
    """-sg(min(r, cap)) A log p where the token is in the trust region or moves towards it, else 0.

    `divergence` is "tv" (|p - p_old|) or "kl" (of old and new, both as this token or another); `clip_low`
    bounds it where A < 0 pushes p down, `clip_high` where A > 0 pushes it up.
    """
    ratio_N = ratio(batch).detach()
    p_N, old_N = batch.logprobs_N.detach().exp(), batch.old_logprobs_N.exp()
    moved_N = (p_N - old_N).abs() if divergence == "tv" else _binary_kl(old_N, p_N)
    ups_N = batch.advantages_N > 0
    outside_N = torch.where(
        ups_N, (p_N > old_N) & (moved_N > clip_high), (p_N < old_N) & (moved_N > clip_low)
    )
    factor_N = torch.where(outside_N, 0.0, ratio_N.clamp(max=ratio_cap))
    loss_N = -factor_N * batch.advantages_N * batch.logprobs_N
    return loss_N, ratio_metrics(ratio_N, outside_N, batch)


def _binary_kl(p_N: Tensor, q_N: Tensor) -> Tensor:
    """KL of the distributions (p, 1 - p) and (q, 1 - q), finite where a probability rounds to 1."""
    tiny = 1e-8
    rest_N = (1.0 - p_N) * ((1.0 - p_N + tiny) / (1.0 - q_N + tiny)).log()
    return p_N * (p_N.clamp(min=tiny) / q_N.clamp(min=tiny)).log() + rest_N


CLIP = ("clip_low", "clip_high")
# a loss, and the fields of the config that are its options
LOSSES: Mapping[PolicyLossName, tuple[Callable[..., tuple[Tensor, Metrics]], Sequence[str]]] = {
    "ppo_clip": (ppo_clip, (*CLIP, "dual_clip")),
    "gspo": (gspo, CLIP),
    "cispo": (cispo, CLIP),
    "policy_gradient": (policy_gradient, ()),
    "sapo": (sapo, ("gate_positive", "gate_negative")),
    "gmpo": (gmpo, CLIP),
    "dppo_tv": (partial(dppo, divergence="tv"), (*CLIP, "ratio_cap")),
    "dppo_kl": (partial(dppo, divergence="kl"), (*CLIP, "ratio_cap")),
}


def policy_loss(config: AlgorithmConfig) -> PolicyLoss:
    """The loss that the config names, with its options bound. Choose once, at start-up."""
    loss, options = LOSSES[config.loss]
    return partial(loss, **{name: getattr(config, name) for name in options})
