"""Policy losses: pure functions of flat tokens, tensors in, (loss per token, metrics) out.

Aggregation is a weight per token, computed once over the *global* batch (`token_weights`), so the gradient
does not depend on how the batch is cut into micro-batches or ranks. Metrics are sums over the counted
tokens; the learner divides by the global count.

Departures from the papers:
- PPO-clip (arXiv:1707.06347) with separate bounds (DAPO, arXiv:2503.14476, eq. 10) and an optional
  dual clip (arXiv:1912.09729). The ratio is to the policy that started the step, not to the sampler.
- GSPO (arXiv:2507.18071): the ratio is the geometric mean over the sequence's *counted* tokens.
- CISPO (arXiv:2506.13585): only the upper bound clips, unless the config sets a `clip_low` below 1.
- SAPO (arXiv:2511.20347): a sigmoid gate instead of a clip; the gate of advantage 0 does not matter.
- GMPO (arXiv:2507.20673): the geometric mean of token ratios that are clipped in log space, on the side that
  the advantage pushes to.
- DPPO (arXiv:2602.04879): tokens pushed out of a trust region in total variation or in KL, both of the binary
  distribution "this token or another", have no gradient; the others have that of CISPO, capped at
  `ratio_cap`. The region is around the policy that started the step, the paper's around the sampler's.
- Policy gradient: there is no ratio, so it is only right on-policy (the config refuses the rest).

Shapes: N completion tokens and S sequences of the micro-batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from verl_lite.engine.config.algorithm import AlgorithmConfig, PolicyLossName

Metrics = dict[str, Tensor]
MAX_LOG_RATIO = 20.0  # e^20 is past any clip; a larger exp overflows float32, and its gradient is nan


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInput:
    """What a policy loss reads, one value per token. `mask_N` is 1 where the token counts."""

    logprobs_N: Tensor
    old_logprobs_N: Tensor
    advantages_N: Tensor
    mask_N: Tensor
    sequence_N: Tensor
    num_sequences: int


def counted(values_N: Tensor, mask_N: Tensor) -> Tensor:
    """The values where the mask counts, exactly 0 elsewhere: 0 times nan or inf would be nan.

    >>> counted(torch.tensor([2.0, float("nan")]), torch.tensor([1.0, 0.0]))
    tensor([2., 0.])
    """
    return torch.where(mask_N > 0, values_N, 0.0)


def only_counted(batch: LossInput) -> LossInput:
    """The batch with 0 at every token that does not count, so that nothing there reaches loss or gradient."""
    return replace(
        batch,
        logprobs_N=counted(batch.logprobs_N, batch.mask_N),
        old_logprobs_N=counted(batch.old_logprobs_N, batch.mask_N),
        advantages_N=counted(batch.advantages_N, batch.mask_N),
    )


PolicyLoss = Callable[[LossInput], tuple[Tensor, Metrics]]


def token_weights(
    mask_lengths_S: Sequence[int], aggregate: str, *, norm_tokens: int | None = None
) -> list[float]:
    """Per sequence, the weight of each of its counted tokens in the global batch.

    token_mean         1 / all counted tokens
    sequence_mean      1 / (sequences with a counted token x tokens of this one)
    sequence_sum_norm  1 / (sequences with a counted token x norm_tokens)

    >>> token_weights([1, 3], "token_mean")
    [0.25, 0.25]
    >>> token_weights([1, 4, 0], "sequence_mean")
    [0.5, 0.125, 0.0]
    """
    num_tokens, num_sequences = sum(mask_lengths_S), sum(length > 0 for length in mask_lengths_S)
    weights = []
    for length in mask_lengths_S:
        if length == 0:
            weights.append(0.0)
        elif aggregate == "token_mean":
            weights.append(1.0 / num_tokens)
        elif aggregate == "sequence_mean":
            weights.append(1.0 / (num_sequences * length))
        else:
            assert norm_tokens is not None
            weights.append(1.0 / (num_sequences * norm_tokens))
    return weights


def ppo_clip(
    batch: LossInput, *, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float | None = None
) -> tuple[Tensor, Metrics]:
    """-min(r A, clip(r, 1 - low, 1 + high) A); with dual clip, at most -c A where A < 0.

    Ratio 0.5, clip 0.2, advantage 1 gives -0.5; ratio 1.5 gives -1.2.
    """
    ratio_N = ratio(batch)
    return _clipped(ratio_N, batch, clip_low, clip_high, dual_clip)


def gspo(batch: LossInput, *, clip_low: float, clip_high: float) -> tuple[Tensor, Metrics]:
    """PPO-clip with one ratio per sequence: exp of the mean log-ratio over its counted tokens."""
    log_ratio_N = batch.logprobs_N - batch.old_logprobs_N
    mean_S = sequence_mean(log_ratio_N, batch)
    ratio_N = mean_S.clamp(max=MAX_LOG_RATIO).exp()[batch.sequence_N]
    return _clipped(ratio_N, batch, clip_low, clip_high, None)


def cispo(batch: LossInput, *, clip_low: float, clip_high: float) -> tuple[Tensor, Metrics]:
    """-sg(clip(r, 1 - low, 1 + high)) A log p: a clipped token keeps a (bounded) gradient."""
    ratio_N = ratio(batch).detach()
    bounded_N = ratio_N.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_N = -bounded_N * batch.advantages_N * batch.logprobs_N
    return loss_N, _ratio_metrics(ratio_N, bounded_N != ratio_N, batch)


def policy_gradient(batch: LossInput) -> tuple[Tensor, Metrics]:
    """-A log p (REINFORCE)."""
    return -batch.advantages_N * batch.logprobs_N, {}


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
    return -gate_N * batch.advantages_N, _ratio_metrics(ratio_N, torch.zeros_like(ratio_N), batch)


def gmpo(batch: LossInput, *, clip_low: float = 0.4, clip_high: float = 0.4) -> tuple[Tensor, Metrics]:
    """-A exp(mean of the sequence's clipped log-ratios); the bounds are [-low, high] in log space."""
    log_ratio_N = batch.logprobs_N - batch.old_logprobs_N
    bounded_N = log_ratio_N.clamp(-clip_low, clip_high)
    kept_N = torch.where(
        batch.advantages_N > 0, torch.minimum(log_ratio_N, bounded_N), torch.maximum(log_ratio_N, bounded_N)
    )
    ratio_N = sequence_mean(kept_N, batch).clamp(max=MAX_LOG_RATIO).exp()[batch.sequence_N]
    return -ratio_N * batch.advantages_N, _ratio_metrics(ratio_N, kept_N != log_ratio_N, batch)


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
    return loss_N, _ratio_metrics(ratio_N, outside_N, batch)


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


def sequence_mean(values_N: Tensor, batch: LossInput) -> Tensor:
    """mean_S over each sequence's counted tokens; 0 for a sequence without any."""
    zeros_S = values_N.new_zeros(batch.num_sequences)
    totals_S = zeros_S.index_add(0, batch.sequence_N, values_N * batch.mask_N)
    counts_S = zeros_S.index_add(0, batch.sequence_N, batch.mask_N.to(values_N.dtype))
    return totals_S / counts_S.clamp(min=1.0)


def ratio(batch: LossInput) -> Tensor:
    """p / p_old per token, with its gradient."""
    return (batch.logprobs_N - batch.old_logprobs_N).clamp(max=MAX_LOG_RATIO).exp()


def _clipped(
    ratio_N: Tensor, batch: LossInput, low: float, high: float, dual_clip: float | None
) -> tuple[Tensor, Metrics]:
    advantages_N = batch.advantages_N
    free_N = ratio_N * advantages_N
    bounded_N = ratio_N.clamp(1.0 - low, 1.0 + high) * advantages_N
    gain_N = torch.minimum(free_N, bounded_N)
    clipped_N = bounded_N < free_N
    if dual_clip is not None:
        floor_N = dual_clip * advantages_N
        clipped_N = clipped_N | ((advantages_N < 0) & (gain_N < floor_N))
        gain_N = torch.where(advantages_N < 0, torch.maximum(gain_N, floor_N), gain_N)
    return -gain_N, _ratio_metrics(ratio_N, clipped_N, batch)


def _ratio_metrics(ratio_N: Tensor, clipped_N: Tensor, batch: LossInput) -> Metrics:
    return {
        "policy/clip_fraction": (clipped_N * batch.mask_N).sum().detach(),
        "policy/ratio": (ratio_N * batch.mask_N).sum().detach(),
    }
