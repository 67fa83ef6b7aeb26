"""Packed attention by torch's SDPA: segments of similar length share one call.

So do completions of prompts of equal length. Right padding comes after every real query, so causal attention
never sees it. The only way on the CPU; on a GPU for what the kernels of attention_kernels.py do not compute.

Shapes: H query heads, K key heads, T tokens in the row, E head size, n segments in a bucket, m in the
bucket of their prompts, L their padded length.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from verl_lite.engine.learner.packing import Segment, to_device

# On the CPU, SDPA's backward pass takes longer in bfloat16 than in float32: 4x with a mask; without one 8x at
# 21 tokens, 2x at 128, 1x at 512, 0.67x at 1,024.
MIN_BFLOAT16_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRule:
    """How one layer attends: a query sees the last `window` tokens, itself among them.

    Scores are `cap * tanh(scores / cap)` with a soft cap; `sinks_H` adds one key without a value per head.
    """

    scale: float
    window: int | None = None
    cap: float | None = None
    sinks_H: Tensor | None = None
    dropout: float = 0.0  # of attention weights

    @property
    def is_plain(self) -> bool:
        """Whether SDPA computes it."""
        return self.cap is None and self.sinks_H is None


@dataclass(frozen=True, slots=True)
class Bucket:
    """`count` segments of at most `length` tokens, with the shared prompts they continue, if any."""

    count: int
    length: int
    prefix: "Prefixes | None" = None


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prompts that a bucket's segments continue: `size` tokens each, in rows of another bucket.

    `rows_n` is the row per segment; None if all continue `row`.
    """

    bucket: int
    size: int
    row: int
    rows_n: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Buckets:
    """The indices are None if the buckets keep the order of the row."""

    buckets: tuple[Bucket, ...]
    gather: Tensor | None  # row -> padded buckets end to end
    scatter_T: Tensor | None  # and back
    masks: dict[tuple[int, int, int | None], Tensor | None] = field(default_factory=dict)

    def mask_LK(self, bucket: Bucket, window: int | None, device: torch.device) -> Tensor | None:
        """Which keys (the prefix's, then the bucket's own) each query sees; None if plainly causal."""
        size = bucket.prefix.size if bucket.prefix is not None else 0
        total = size + bucket.length
        if window is not None and window >= total:
            window = None
        key = (size, bucket.length, window)
        if key not in self.masks:
            mask = None
            if size or window is not None:
                mask = torch.ones(bucket.length, total, dtype=torch.bool, device=device).tril(size)
                if window is not None:
                    mask = mask.triu(size - window + 1)
            self.masks[key] = mask
        return self.masks[key]


def make_buckets(segments: Sequence[Segment], device: torch.device) -> Buckets:
    """Buckets of `segments`, for few SDPA calls. A segment with a prefix comes after its prompt."""
    roots = _by_length(segments, [at for at, segment in enumerate(segments) if segment.prefix is None])
    row_of = {at: (b, row) for b, members in enumerate(roots) for row, at in enumerate(members)}
    groups = roots + _with_equal_prefixes(segments, row_of)
    buckets: list[Bucket] = []
    gather: list[int] = []
    scatter_T = [0] * segments[-1].end
    for members in groups:
        length = max(_length(segments[at]) for at in members)
        buckets.append(Bucket(len(members), length, _prefixes(segments, members, row_of, device)))
        for at in members:
            start, end = segments[at].start, segments[at].end
            scatter_T[start:end] = range(len(gather), len(gather) + end - start)
            gather += [*range(start, end), *[end - 1] * (length - (end - start))]
    if gather == list(range(len(gather))):
        return Buckets(tuple(buckets), None, None)
    there, back = (to_device(torch.tensor(order), device) for order in (gather, scatter_T))
    return Buckets(tuple(buckets), there, back)


def _length(segment: Segment) -> int:
    return segment.end - segment.start


def _by_length(segments: Sequence[Segment], members: Sequence[int]) -> list[list[int]]:
    """Runs of `members` whose lengths differ by at most an eighth, or 8 tokens."""
    groups: list[list[int]] = []
    shortest = longest = 0
    for at in members:
        length = _length(segments[at])
        low, high = min(shortest, length), max(longest, length)
        if groups and high - low <= max(8, high // 8):
            groups[-1].append(at)
            shortest, longest = low, high
        else:
            groups.append([at])
            shortest = longest = length
    return groups


def _with_equal_prefixes(
    segments: Sequence[Segment], row_of: Mapping[int, tuple[int, int]]
) -> list[list[int]]:
    """Completions whose prompts share a bucket and a length, shortest completions first."""
    families: dict[tuple[int, int], list[int]] = defaultdict(list)
    for at, segment in enumerate(segments):
        if segment.prefix is not None:
            families[row_of[segment.prefix][0], _length(segments[segment.prefix])].append(at)
    return [
        group
        for members in families.values()
        for group in _by_length(segments, sorted(members, key=lambda at: (_length(segments[at]), at)))
    ]


def _prefixes(
    segments: Sequence[Segment],
    members: Sequence[int],
    row_of: Mapping[int, tuple[int, int]],
    device: torch.device,
) -> Prefixes | None:
    prefixes = [segments[at].prefix for at in members]
    first = prefixes[0]
    if first is None:
        return None
    bucket, row = row_of[first]
    rows = [row_of[prefix][1] for prefix in prefixes if prefix is not None]
    differ = None if all(one == row for one in rows) else to_device(torch.tensor(rows), device)
    return Prefixes(bucket, _length(segments[first]), row, differ)


def bucketed_attention(
    query_HTE: Tensor, key_KTE: Tensor, value_KTE: Tensor, buckets: Buckets, rule: LayerRule
) -> Tensor:
    """Attention output_THE of a packed row."""
    query, key, value = (x.transpose(0, 1) for x in (query_HTE, key_KTE, value_KTE))
    if buckets.gather is not None:
        query, key, value = (x.index_select(0, buckets.gather) for x in (query, key, value))
    sizes = [bucket.count * bucket.length for bucket in buckets.buckets]
    queries, keys, values = (_split(x, sizes, buckets) for x in (query, key, value))
    outputs = []
    for at, bucket in enumerate(buckets.buckets):
        k, v = keys[at], values[at]
        if bucket.prefix is not None:
            k = _with_prefix(keys[bucket.prefix.bucket], bucket.prefix, k)
            v = _with_prefix(values[bucket.prefix.bucket], bucket.prefix, v)
        mask_LK = buckets.mask_LK(bucket, rule.window, query.device)
        out = _attend(queries[at], k, v, mask_LK, rule)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    output = torch.cat(outputs)
    return output if buckets.scatter_T is None else output.index_select(0, buckets.scatter_T)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask_LK: Tensor | None, rule: LayerRule) -> Tensor:
    device_type, dtype = query.device.type, query.dtype
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
    is_slow = device_type == "cpu" and (mask_LK is not None or query.shape[2] < MIN_BFLOAT16_TOKENS)
    inside = torch.float32 if is_slow and dtype == torch.bfloat16 else dtype
    query, key, value = query.to(inside), key.to(inside), value.to(inside)
    grouped = query.shape[1] != key.shape[1]
    if grouped and mask_LK is not None and _has_only_math(query):
        repeats = query.shape[1] // key.shape[1]
        key, value, grouped = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), False
    with torch.autocast(device_type, enabled=False):  # it would cast them back
        if not rule.is_plain:
            return dense_attention(query, key, value, mask_LK, rule).to(dtype)
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask_LK,
            dropout_p=rule.dropout,
            is_causal=mask_LK is None,
            scale=rule.scale,
            enable_gqa=grouped,
        ).to(dtype)


def _has_only_math(query: Tensor) -> bool:
    """Whether SDPA with a mask and grouped heads has only its math kernel here, which keeps every score."""
    return query.is_cuda


def dense_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rule: LayerRule
) -> Tensor:
    """Attention with a soft cap or sinks, of which SDPA has neither: all scores exist at once.

    `mask` is True where a query sees a key, causal if None.
    """
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = query @ key.transpose(2, 3) * rule.scale
    if rule.cap is not None:
        scores = rule.cap * torch.tanh(scores / rule.cap)
    if mask is None:
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        mask = ones.tril(scores.shape[-1] - scores.shape[-2])
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if rule.sinks_H is not None:
        sinks = rule.sinks_H.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, sinks), dim=-1)
    shares = scores.softmax(-1)[..., : key.shape[2]].to(value.dtype)
    return torch.dropout(shares, rule.dropout, rule.dropout > 0.0) @ value


def _split(x_THE: Tensor, sizes: list[int], buckets: Buckets) -> list[Tensor]:
    """x_nHLE of each bucket. One split instead of slices: its backward pass is one concatenation."""
    parts = zip(torch.split(x_THE, sizes), buckets.buckets, strict=True)
    return [part.view(b.count, b.length, *part.shape[1:]).transpose(1, 2) for part, b in parts]


def _with_prefix(prompts_mKLE: Tensor, prefix: Prefixes, own_nKLE: Tensor) -> Tensor:
    if prefix.rows_n is None:
        before = prompts_mKLE[prefix.row, :, : prefix.size].expand(own_nKLE.shape[0], -1, -1, -1)
    else:
        before = prompts_mKLE[:, :, : prefix.size].index_select(0, prefix.rows_n)
    return torch.cat((before, own_nKLE), dim=2)
