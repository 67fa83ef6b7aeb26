"""Attention over a packed row: segments are independent, except that completions see their shared prompt.

Registered with transformers under our own name; calls outside a packed forward (generation, padded rows)
fall through to its SDPA. Which implementation computes a packed row is chosen from a table: kernels for
packed rows on a GPU (attention_kernels.py), or buckets of SDPA (attention_buckets.py).

A layer's window, soft cap and sinks are those that it passes to the attention interface; no configuration
is read. What cannot be honoured in a packed row raises, and proof.py finds what a layer keeps to itself.

Shapes: H query heads, K key heads, T tokens in the row, E head size.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from verl_lite.engine.learner.attention_buckets import LayerRule, bucketed_attention, dense_attention
from verl_lite.engine.learner.attention_kernels import Problem, choose_kernel
from verl_lite.engine.learner.attention_plans import AttentionMetadata

ATTENTION_NAME = "verl_lite_packed"


class NotPacked(RuntimeError):
    """A layer cannot be computed in a packed row."""


_packing: ContextVar[bool] = ContextVar("packing", default=False)


def packed_attention(
    query_HTE: Tensor, key_KTE: Tensor, value_KTE: Tensor, metadata: AttentionMetadata, rule: LayerRule
) -> Tensor:
    """Attention output_THE of a packed row."""
    if query_HTE.is_cuda:
        kernel = choose_kernel(Problem.of(query_HTE, key_KTE, rule, repeated=metadata.num_repeated))
        if kernel is not None:
            return kernel.attend(query_HTE, key_KTE, value_KTE, metadata, rule)
    return bucketed_attention(query_HTE, key_KTE, value_KTE, metadata.buckets, rule)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # plans differ per micro-batch: a graph ends here
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
    metadata: AttentionMetadata | None = kwargs.pop("packed_metadata", None)
    rule = LayerRule(
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=kwargs.get("sliding_window"),
        cap=kwargs.get("softcap"),
        sinks_H=kwargs.get("s_aux"),
        dropout=dropout,
    )
    if metadata is not None or _packing.get():
        _refuse_in_packed_row(module, metadata, attention_mask, kwargs)
        assert metadata is not None
        return packed_attention(query[0], key[0], value[0], metadata, rule).unsqueeze(0), None
    if rule.is_plain:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    return dense_attention(query, key, value, attention_mask, rule).transpose(1, 2).contiguous(), None


_HARMLESS = ("sliding_window", "softcap", "s_aux", "position_ids", "cache_position", "token_type_ids")


def _refuse_in_packed_row(
    module: torch.nn.Module,
    metadata: AttentionMetadata | None,
    mask: Tensor | None,
    options: Mapping[str, Any],
) -> None:
    """Raise NotPacked for a layer that a packed row would compute wrongly."""
    reasons = {
        "loses the plan of the packed row": metadata is None,
        "builds a mask of its own": mask is not None,
        "is not causal": not options.get("is_causal", getattr(module, "is_causal", True)),
    }
    reasons |= {
        f"passes {name} to its attention": isinstance(value, Tensor)
        for name, value in options.items()
        if name not in _HARMLESS
    }
    for reason, holds in reasons.items():
        if holds:
            raise NotPacked(f"{type(module).__name__} {reason}")


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    if _packing.get():
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, **kwargs)  # type: ignore[no-any-return]


def register_attention() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

    AttentionInterface.register(ATTENTION_NAME, _attention)
    AttentionMaskInterface.register(ATTENTION_NAME, _mask)
    look = getattr(masking_utils, "find_packed_sequence_indices", None)
    if look is not None and not isinstance(look, _LooksForRows):
        masking_utils.find_packed_sequence_indices = _LooksForRows(look)


@dataclass(frozen=True, slots=True)
class _LooksForRows:
    """transformers' search for packed rows, which waits for the GPU: not in a packed row of ours."""

    look: Callable[..., Tensor | None]

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor | None:
        return None if _packing.get() else self.look(*args, **kwargs)


@contextmanager
def packed_forward() -> Iterator[None]:
    """Inside, transformers builds no mask: the metadata says which tokens attend to which."""
    token = _packing.set(True)
    try:
        yield
    finally:
        _packing.reset(token)
