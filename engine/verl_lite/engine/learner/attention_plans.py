"""What attention needs to know of a packed row: made once per micro-batch, on the device.

Shapes: T tokens in the row, S keys with those of shared prompts repeated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from verl_lite.engine.learner.attention_buckets import Buckets, make_buckets
from verl_lite.engine.learner.packing import Segment, to_device

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class VarlenPlan:
    """Where segments begin (int32) in queries and keys, and the row of each key (None: in order)."""

    gather_S: Tensor | None
    begin_queries: Tensor
    begin_keys: Tensor
    longest_query: int
    longest_key: int

    @classmethod
    def of(cls, segments: Sequence[Segment], device: torch.device) -> "VarlenPlan":
        queries, keys, gather = [0], [0], list[int]()
        for segment in segments:
            if segment.prefix is not None:
                prompt = segments[segment.prefix]
                gather += range(prompt.start, prompt.end)
            gather += range(segment.start, segment.end)
            queries.append(segment.end)
            keys.append(len(gather))
        repeats = len(gather) > segments[-1].end
        return cls(
            gather_S=to_device(torch.tensor(gather), device) if repeats else None,
            begin_queries=to_device(torch.tensor(queries, dtype=torch.int32), device),
            begin_keys=to_device(torch.tensor(keys, dtype=torch.int32), device),
            longest_query=max(right - left for left, right in pairwise(queries)),
            longest_key=max(right - left for left, right in pairwise(keys)),
        )


@dataclass(frozen=True, slots=True)
class FlexPlan:
    """Per token its segment, the segment of its prompt (-1: none) and its position in its own sequence."""

    segment_T: Tensor
    prefix_T: Tensor
    position_T: Tensor
    masks: dict[int | None, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, segments: Sequence[Segment], device: torch.device) -> "FlexPlan":
        sizes = torch.tensor([segment.end - segment.start for segment in segments])
        prompts = [-1 if segment.prefix is None else segment.prefix for segment in segments]
        before = torch.tensor([0 if at < 0 else segments[at].end - segments[at].start for at in prompts])
        starts = torch.tensor([segment.start for segment in segments])
        tokens = torch.arange(segments[-1].end)
        each = torch.repeat_interleave(torch.arange(len(segments)), sizes)
        columns = (each, torch.tensor(prompts)[each], tokens - starts[each] + before[each])
        segment_T, prefix_T, position_T = (to_device(column.int(), device) for column in columns)
        return cls(segment_T, prefix_T, position_T)

    def mask_mod(self, window: int | None) -> MaskMod:
        """Whether a query sees a key, as flex_attention asks for it."""
        segment_T, prefix_T, position_T = self.segment_T, self.prefix_T, self.position_T

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            own = (segment_T[query] == segment_T[key]) & (key <= query)
            return own | (prefix_T[query] == segment_T[key])

        if window is None:
            return visible
        width = window

        def in_window(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return visible(batch, head, query, key) & (position_T[query] - position_T[key] < width)

        return in_window

    def block_mask(self, window: int | None) -> Any:
        """The blocks that flex_attention computes; one per window, shared by the layers."""
        if window not in self.masks:
            device, size = self.segment_T.device, len(self.segment_T)
            make = _block_mask_maker(device.type)
            self.masks[window] = make(self.mask_mod(window), None, None, size, size, device=device)
        return self.masks[window]


@cache
def _block_mask_maker(device_type: str) -> Callable[..., Any]:
    """On a GPU compiled, once for rows of all lengths: eager, it holds a few T x T tensors."""
    from torch.nn.attention.flex_attention import create_block_mask

    eager: Callable[..., Any] = create_block_mask
    return torch.compile(eager, dynamic=True) if device_type == "cuda" else eager


@dataclass(frozen=True)
class AttentionMetadata:
    """The segments of a packed row, prompts first; what attention needs of them is made once per row."""

    segments: tuple[Segment, ...]
    device: torch.device

    @cached_property
    def num_repeated(self) -> int:
        """Tokens of shared prompts, once per completion."""
        prompts = (self.segments[s.prefix] for s in self.segments if s.prefix is not None)
        return sum(prompt.end - prompt.start for prompt in prompts)

    @cached_property
    def buckets(self) -> Buckets:
        return make_buckets(self.segments, self.device)

    @cached_property
    def varlen(self) -> VarlenPlan:
        return VarlenPlan.of(self.segments, self.device)

    @cached_property
    def flex(self) -> FlexPlan:
        return FlexPlan.of(self.segments, self.device)
