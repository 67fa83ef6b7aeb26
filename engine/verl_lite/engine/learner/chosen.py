"""Log-probabilities of chosen tokens besides the sampled ones, for distillation.

The normaliser of a place is known from the tiled kernel (the sampled token's logit minus its
log-probability), so K further tokens cost K dot products. Places are computed in chunks whose rows of the
output head fit the tile, and again in the backward pass.

Shapes: N places of a micro-batch, D hidden, V vocabulary, K chosen tokens.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from verl_lite.engine.learner.head import OutputHead
from verl_lite.engine.types import TeacherTokens, TrainingSample


def read_teachers(samples: Sequence[TrainingSample]) -> TeacherTokens | None:
    """The teachers' tokens at every place, zeros where a sample has no teacher; None without any teacher."""
    known = [sample.teacher for sample in samples if sample.teacher is not None]
    if not known:
        return None
    K = known[0].logprobs_TK.shape[1]

    def joined(of: Callable[[TeacherTokens], Tensor], like: Tensor) -> Tensor:
        rows = [
            like.new_zeros((len(s.completion_ids), K)) if s.teacher is None else of(s.teacher)
            for s in samples
        ]
        return torch.cat(rows)

    def ids_of(teacher: TeacherTokens) -> Tensor:
        assert teacher.ids_TK is not None
        return teacher.ids_TK

    return TeacherTokens(
        logprobs_TK=joined(lambda teacher: teacher.logprobs_TK, known[0].logprobs_TK),
        ids_TK=None if known[0].ids_TK is None else joined(ids_of, known[0].ids_TK),
        is_complete=known[0].is_complete,
    )


def chosen_logprobs(
    head: OutputHead,
    hidden_ND: Tensor,
    targets_N: Tensor,
    logprobs_N: Tensor,
    *,
    ids_NK: Tensor | None,
    temperature: float,
    tile_mb: int,
) -> Tensor:
    """chosen_NK: log p of the tokens `ids_NK` (None: of the whole vocabulary), with gradients.

    `logprobs_N` are those of `targets_N`, from the tiled kernel.
    """

    weight_VD: Tensor = head.linear.weight  # type: ignore[assignment]

    def every(hidden_nD: Tensor) -> Tensor:
        return (head.logits(hidden_nD.to(weight_VD.dtype)) / temperature).log_softmax(-1)

    def some(hidden_nD: Tensor, logprobs_n: Tensor, ids_nK: Tensor) -> Tensor:
        wide = torch.float64 if hidden_nD.dtype == torch.float64 else torch.float32
        logits_nK = (weight_VD[ids_nK].to(wide) * hidden_nD.to(wide)[:, None]).sum(-1)
        bias = getattr(head.linear, "bias", None)
        logits_nK = head.rule.apply(logits_nK if bias is None else logits_nK + bias[ids_nK]) / temperature
        return logits_nK[:, 1:] - (logits_nK[:, :1] - logprobs_n[:, None])

    V, D = weight_VD.shape
    width = V if ids_NK is None else (ids_NK.shape[1] + 1) * D
    size = max(tile_mb * 2**20 // (4 * width), 1)
    with torch.autocast(hidden_ND.device.type, enabled=False):
        if ids_NK is None:
            parts = [_again(every, chunk) for chunk in torch.split(hidden_ND, size)]
        else:
            ids_NK = torch.cat([targets_N[:, None], ids_NK.to(targets_N)], dim=1)
            chunks = zip(*(torch.split(part, size) for part in (hidden_ND, logprobs_N, ids_NK)), strict=True)
            parts = [_again(some, *chunk) for chunk in chunks]
    return torch.cat(parts)


def _again(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function(*inputs)`, computed once more in the backward pass instead of kept."""
    result: Tensor = checkpoint(function, *inputs, use_reentrant=False)
    return result


def top_logprobs(
    head: OutputHead, hidden_ND: Tensor, k: int, *, temperature: float, tile_mb: int
) -> tuple[Tensor, Tensor]:
    """ids_NK and log p of the k most probable tokens at each place; for k = V of all, in the order of ids."""
    weight_VD: Tensor = head.linear.weight  # type: ignore[assignment]
    V, parts = weight_VD.shape[0], []
    with torch.autocast(hidden_ND.device.type, enabled=False):
        for chunk in torch.split(hidden_ND, max(tile_mb * 2**20 // (4 * V), 1)):
            logprobs_nV = (head.logits(chunk.to(weight_VD.dtype)) / temperature).log_softmax(-1)
            if k >= V:
                parts.append((torch.arange(V).expand(len(chunk), V), logprobs_nV))
            else:
                top = logprobs_nV.topk(k)
                parts.append((top.indices, top.values))
    ids, values = zip(*parts, strict=True)
    return torch.cat(ids), torch.cat(values)
