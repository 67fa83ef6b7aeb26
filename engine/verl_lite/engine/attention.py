"""Attention over a packed row: each segment apart, completions of a shared prompt attending to it.

Registered with transformers under a name of our own; a call without a plan (generation, a padded row)
falls through to its SDPA. Segments of similar length go through one SDPA call; the right padding
this needs inside the call is behind every real query, so causal attention never sees it.

Shapes: H query heads, K key heads, T tokens of the row, E head size, n segments of a bucket, L their
padded length, P a shared prompt's length.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from verl_lite.engine.packing import Segment

__all__ = ["ATTENTION_NAME", "AttentionPlan", "attention_plan", "packed_forward", "register_attention"]

ATTENTION_NAME = "verl_lite_packed"
_packing: ContextVar[bool] = ContextVar("packing", default=False)


@dataclass(frozen=True, slots=True)
class Bucket:
    """`count` segments of at most `length` tokens; `prefix` = (bucket, place in it) of a shared prompt."""

    count: int
    length: int
    prefix: tuple[int, int, int] | None = None
    mask_LK: Tensor | None = None


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Made once a micro-batch, used by every layer. `gather` and `scatter` are None where order is kept."""

    buckets: tuple[Bucket, ...]
    gather: Tensor | None
    scatter: Tensor | None


def attention_plan(segments: Sequence[Segment], device: torch.device) -> AttentionPlan:
    """How to attend over `segments` in few calls. Segments with a prefix come after their prompt."""
    groups = _buckets_of(segments)
    place = {at: (b, row) for b, members in enumerate(groups) for row, at in enumerate(members)}
    buckets: list[Bucket] = []
    gather: list[int] = []
    scatter = [0] * segments[-1].end
    for members in groups:
        length = max(segments[at].end - segments[at].start for at in members)
        prefix = segments[members[0]].prefix
        if prefix is None:
            buckets.append(Bucket(len(members), length))
        else:
            size = segments[prefix].end - segments[prefix].start
            ones = torch.ones(length, size + length, dtype=torch.bool, device=device)
            buckets.append(Bucket(len(members), length, (*place[prefix], size), ones.tril(size)))
        for at in members:
            start, end = segments[at].start, segments[at].end
            scatter[start:end] = range(len(gather), len(gather) + end - start)
            gather += [*range(start, end), *[end - 1] * (length - (end - start))]
    if gather == list(range(len(gather))):
        return AttentionPlan(tuple(buckets), None, None)
    return AttentionPlan(
        tuple(buckets), torch.tensor(gather, device=device), torch.tensor(scatter, device=device)
    )


def _buckets_of(segments: Sequence[Segment]) -> list[list[int]]:
    """Neighbours with the same prefix and nearly the same length share a call."""
    groups: list[list[int]] = []
    shortest = 0
    for at, segment in enumerate(segments):
        length = segment.end - segment.start
        if groups:
            first = segments[groups[-1][0]]
            shortest = min(shortest, length)
            longest = max(length, max(segments[i].end - segments[i].start for i in groups[-1]))
            if first.prefix == segment.prefix and longest - shortest <= max(8, longest // 8):
                groups[-1].append(at)
                continue
        groups.append([at])
        shortest = length
    return groups


def packed_attention(
    query_HTE: Tensor, key_KTE: Tensor, value_KTE: Tensor, plan: AttentionPlan, scale: float
) -> Tensor:
    """Attention output (T, H, E) of a packed row."""
    query, key, value = (x.transpose(0, 1) for x in (query_HTE, key_KTE, value_KTE))
    if plan.gather is not None:
        query, key, value = (x.index_select(0, plan.gather) for x in (query, key, value))
    sizes = [bucket.count * bucket.length for bucket in plan.buckets]
    queries, keys, values = (_split(x, sizes, plan) for x in (query, key, value))
    outputs = []
    for at, bucket in enumerate(plan.buckets):
        k, v = keys[at], values[at]
        if bucket.prefix is not None:
            where, row, size = bucket.prefix
            k = _with_prefix(keys[where][row, :, :size], k)
            v = _with_prefix(values[where][row, :, :size], v)
        out = scaled_dot_product_attention(
            queries[at], k, v, attn_mask=bucket.mask_LK, is_causal=bucket.mask_LK is None, scale=scale,
            enable_gqa=queries[at].shape[1] != k.shape[1],
        )  # fmt: skip
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    output = torch.cat(outputs)
    return output if plan.scatter is None else output.index_select(0, plan.scatter)


def _split(x_THE: Tensor, sizes: list[int], plan: AttentionPlan) -> list[Tensor]:
    """One (n, H, L, E) a bucket. One split, not many slices: its backward is one concatenation."""
    parts = zip(torch.split(x_THE, sizes), plan.buckets, strict=True)
    return [part.view(b.count, b.length, *part.shape[1:]).transpose(1, 2) for part, b in parts]


def _with_prefix(prefix_KPE: Tensor, own_nKLE: Tensor) -> Tensor:
    return torch.cat((prefix_KPE.expand(own_nKLE.shape[0], -1, -1, -1), own_nKLE), dim=2)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    plan: AttentionPlan | None = kwargs.pop("packed_plan", None)
    if plan is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return packed_attention(query[0], key[0], value[0], plan, scale).unsqueeze(0), None


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    if _packing.get():
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, **kwargs)  # type: ignore[no-any-return]


def register_attention() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION_NAME, _attention)
    AttentionMaskInterface.register(ATTENTION_NAME, _mask)


@contextmanager
def packed_forward() -> Iterator[None]:
    """Inside, transformers builds no mask: the plan says who attends to whom."""
    token = _packing.set(True)
    try:
        yield
    finally:
        _packing.reset(token)
