"""The loss of SFT: a weighted sum of -log p, whose denominators are counted over the whole batch."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from verl_lite.engine.learner.packing import PackedBatch, to_device
from verl_lite.engine.sft.examples import SFTExample
from verl_lite.engine.types import TrainingSample


def token_factors(weights: Sequence[Sequence[float]], kind: str) -> list[list[float]]:
    """The factor on each token's -log p, from a batch of rows of token weights.

    >>> token_factors([[1.0, 1.0], [2.0]], "token_mean")
    [[0.25, 0.25], [0.5]]
    >>> token_factors([[1.0, 1.0], [2.0]], "row_mean")
    [[0.25, 0.25], [0.5]]
    >>> token_factors([[1.0, 1.0], [2.0]], "sequence")
    [[0.5, 0.5], [1.0]]
    """
    sums = [sum(row) for row in weights]
    rows = len(weights)
    if kind == "token_mean":
        shares = [1.0 / max(sum(sums), 1e-30)] * rows
    elif kind == "row_mean":
        shares = [1.0 / (total * rows) if total else 0.0 for total in sums]
    else:
        shares = [1.0 / rows] * rows
    return [[weight * share for weight in row] for row, share in zip(weights, shares, strict=True)]


def sft_loss(logprobs_N: Tensor, factors_N: Tensor) -> Tensor:
    """-sum of factor * log p: one micro-batch's share of the batch's loss."""
    return -(logprobs_N * factors_N).sum()


def as_sample(example: SFTExample) -> tuple[TrainingSample, list[float]]:
    """(sample for packing, weights of its completion); tokens after the last trained one are dropped."""
    trained = [at for at, weight in enumerate(example.weights_T) if weight > 0]
    first, last = trained[0], trained[-1]
    sample = TrainingSample(
        prompt_ids=example.input_ids[:first],
        completion_ids=example.input_ids[first : last + 1],
        loss_mask_T=[int(weight > 0) for weight in example.weights_T[first : last + 1]],
    )
    return sample, list(example.weights_T[first : last + 1])


def trained_part(batch: PackedBatch, factors: Sequence[Sequence[float]]) -> tuple[PackedBatch, Tensor]:
    """The batch with predictions of trained tokens only (no logits for other turns), and their factors."""
    factors_N = torch.tensor([f for index in batch.sample_indices for f in factors[index]])
    trained = factors_N.nonzero().squeeze(1)
    keep = to_device(trained, batch.targets_N.device)
    part = replace(
        batch,
        predict_from_N=batch.predict_from_N[keep],
        targets_N=batch.targets_N[keep],
        sequence_N=batch.sequence_N[keep],
    )
    return part, to_device(factors_N[trained], keep.device)
