"""Policy losses: pure functions of flat tokens, tensors in, (loss per token, metrics) out.

Aggregation is a weight per token, computed once over the *global* batch (`token_weights`), so the gradient
does not depend on how the batch is cut into micro-batches or ranks. Metrics are sums over the counted
tokens; the learner divides by the global count.

Departures from the papers:
- PPO-clip (arXiv:1707.06347) with separate bounds (DAPO, arXiv:2503.14476, eq. 10) and an optional
  dual clip (arXiv:1912.09729). The ratio is to the policy that started the step, not to the sampler.
- GSPO (arXiv:2507.18071): the ratio is the geometric mean over the sequence's *counted* tokens.
- CISPO (arXiv:2506.13585): only the upper bound clips, unless the config sets a `clip_low` below 1.
- Policy gradient: there is no ratio, so it is only right on-policy (the config refuses the rest).
- SAPO, GMPO and DPPO: see loss_table.py, which has the losses by name.

Shapes: N completion tokens and S sequences of the micro-batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

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
    return loss_N, ratio_metrics(ratio_N, bounded_N != ratio_N, batch)


def policy_gradient(batch: LossInput) -> tuple[Tensor, Metrics]:
    """-A log p (REINFORCE)."""
    return -batch.advantages_N * batch.logprobs_N, {}


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
    return -gain_N, ratio_metrics(ratio_N, clipped_N, batch)


def ratio_metrics(ratio_N: Tensor, clipped_N: Tensor, batch: LossInput) -> Metrics:
    return {
        "policy/clip_fraction": (clipped_N * batch.mask_N).sum().detach(),
        "policy/ratio": (ratio_N * batch.mask_N).sum().detach(),
    }
