"""GPU kernels for packed rows, and the table that chooses one.

    varlen   FlashAttention over segments of any length: the flash-attn packages, or torch's own. A completion
             of a shared prompt is given that prompt's keys again, before its own; windows come for free
    flex     torch's flex_attention, compiled, with a block mask of the row: soft caps, sinks, and prompts
             whose repeated keys would need too much memory

Neither fits: SDPA in buckets (attention_buckets.py). Before a kernel is used it must compute a small row with
its gradients as the dense definition does; one that fails, or cannot run here, is passed over with a warning.

Shapes: H query heads, K key heads, T tokens in the row, S keys with those of shared prompts repeated, E head
size.
"""

import importlib.util
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from verl_lite.engine.learner.attention_buckets import LayerRule, dense_attention
from verl_lite.engine.learner.attention_plans import AttentionMetadata, FlexPlan, VarlenPlan
from verl_lite.engine.learner.packing import Segment

MAX_KEY_GROWTH = 3.0  # keys with repeated prompts, relative to the row's own: beyond, flex copies nothing
MAX_VARLEN_HEAD = 256
TRIAL_ERROR = 0.03  # of the reference's norm: some seven times bfloat16's rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What decides which kernel fits: shapes, dtype inside, and the layer's rule."""

    dtype: torch.dtype
    device: torch.device
    head_size: int
    num_heads: int
    num_kv_heads: int
    has_window: bool
    has_cap: bool
    has_sinks: bool
    has_dropout: bool
    repeats_much: bool  # repeated prompts would multiply the keys by more than MAX_KEY_GROWTH

    @classmethod
    def of(cls, query_HTE: Tensor, key_KTE: Tensor, rule: LayerRule, *, repeated: int) -> "Problem":
        """`repeated`: how many keys of shared prompts stand before completions."""
        return cls(
            dtype=inner_dtype(query_HTE),
            device=query_HTE.device,
            head_size=query_HTE.shape[2],
            num_heads=query_HTE.shape[0],
            num_kv_heads=key_KTE.shape[0],
            has_window=rule.window is not None,
            has_cap=rule.cap is not None,
            has_sinks=rule.sinks_H is not None,
            has_dropout=rule.dropout > 0.0,
            repeats_much=repeated > (MAX_KEY_GROWTH - 1.0) * query_HTE.shape[1],
        )


def inner_dtype(query: Tensor) -> torch.dtype:
    """The dtype that attention computes in: autocast's inside autocast."""
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


class Kernel(Protocol):
    """One way to compute a packed row; `fits` says whether it can, by its documentation."""

    @property
    def name(self) -> str: ...

    def fits(self, problem: Problem) -> bool: ...

    def attend(
        self, query_HTE: Tensor, key_KTE: Tensor, value_KTE: Tensor, plans: AttentionMetadata, rule: LayerRule
    ) -> Tensor:
        """output_THE."""


@dataclass(frozen=True, slots=True)
class Varlen:
    """FlashAttention of variable length; `call` hides the packages' signatures."""

    name: str
    call: Callable[[Tensor, Tensor, Tensor, VarlenPlan, LayerRule], Tensor]
    has_cap: bool = False

    def fits(self, problem: Problem) -> bool:
        return (
            problem.dtype in (torch.bfloat16, torch.float16)
            and problem.head_size <= MAX_VARLEN_HEAD
            and (self.has_cap or not problem.has_cap)
            and not (problem.has_sinks or problem.has_dropout or problem.repeats_much)
        )

    def attend(
        self, query_HTE: Tensor, key_KTE: Tensor, value_KTE: Tensor, plans: AttentionMetadata, rule: LayerRule
    ) -> Tensor:
        dtype, plan = inner_dtype(query_HTE), plans.varlen
        query, key, value = (x.transpose(0, 1).to(dtype) for x in (query_HTE, key_KTE, value_KTE))
        if plan.gather_S is not None:
            key, value = (_Repeated.apply(x, plan.gather_S) for x in (key, value))  # type: ignore[no-untyped-call]
        with torch.autocast(query.device.type, enabled=False):
            return self.call(query, key, value, plan, rule)


class _Repeated(torch.autograd.Function):
    """Rows of x, some of them several times; their gradients are added in float32."""

    @staticmethod
    def forward(ctx: Any, x_TKE: Tensor, gather_S: Tensor) -> Tensor:
        ctx.save_for_backward(gather_S)
        ctx.num_rows = x_TKE.shape[0]
        return x_TKE.index_select(0, gather_S)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad_SKE,), (gather_S,) = grads, ctx.saved_tensors
        wide = grad_SKE.float() if grad_SKE.dtype != torch.float64 else grad_SKE
        total = wide.new_zeros(ctx.num_rows, *wide.shape[1:]).index_add_(0, gather_S, wide)
        return total.to(grad_SKE.dtype), None


def _edge(rule: LayerRule) -> tuple[int, int]:
    """(left, right) as FlashAttention counts a causal window; the query itself is not counted."""
    return (-1 if rule.window is None else rule.window - 1, 0)


def _torch_varlen(function: Callable[..., Any]) -> Varlen:
    """torch.nn.attention.varlen as of 2.11; since 2.12 grouped heads are to be announced."""
    grouped = "enable_gqa" in inspect.signature(function).parameters

    def call(query: Tensor, key: Tensor, value: Tensor, plan: VarlenPlan, rule: LayerRule) -> Tensor:
        begins = (plan.begin_queries, plan.begin_keys, plan.longest_query, plan.longest_key)
        options = {"enable_gqa": query.shape[1] != key.shape[1]} if grouped else {}
        return function(  # type: ignore[no-any-return]
            query, key, value, *begins, scale=rule.scale, window_size=_edge(rule), **options
        )

    return Varlen("torch varlen_attn", call)


def _flash_varlen(name: str, function: Callable[..., Any]) -> Varlen:
    """flash_attn_varlen_func of flash-attn 2 and 3, which share the arguments used here."""

    def call(query: Tensor, key: Tensor, value: Tensor, plan: VarlenPlan, rule: LayerRule) -> Tensor:
        out = function(
            query,
            key,
            value,
            cu_seqlens_q=plan.begin_queries,
            cu_seqlens_k=plan.begin_keys,
            max_seqlen_q=plan.longest_query,
            max_seqlen_k=plan.longest_key,
            softmax_scale=rule.scale,
            causal=True,
            window_size=_edge(rule) if rule.window is not None else (-1, -1),
            softcap=rule.cap or 0.0,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]

    return Varlen(name, call, has_cap=True)


class Flex:
    """flex_attention with the row's block mask."""

    name = "flex_attention"

    def fits(self, problem: Problem) -> bool:
        # what SDPA computes in float32 is not worth compiling for: it is what proof.py runs before training
        needed = (
            problem.dtype != torch.float32 or problem.has_cap or problem.has_sinks or problem.repeats_much
        )
        can = problem.head_size >= 16 and not problem.has_dropout and problem.dtype != torch.float64
        return needed and can

    def attend(
        self, query_HTE: Tensor, key_KTE: Tensor, value_KTE: Tensor, plans: AttentionMetadata, rule: LayerRule
    ) -> Tensor:
        from torch.nn.attention.flex_attention import AuxRequest

        dtype = inner_dtype(query_HTE)
        query, key, value = (x.unsqueeze(0).to(dtype) for x in (query_HTE, key_KTE, value_KTE))
        with torch.autocast(query.device.type, enabled=False):
            out, aux = _flex(query.device.type)(
                query,
                key,
                value,
                score_mod=score_mod(rule),
                block_mask=plans.flex.block_mask(rule.window),
                scale=rule.scale,
                enable_gqa=query.shape[1] != key.shape[1],
                return_aux=AuxRequest(lse=True),
            )
        if rule.sinks_H is not None:  # exp(lse) / (exp(lse) + exp(sink))
            share_1HT = torch.sigmoid(aux.lse.float() - rule.sinks_H.float()[None, :, None])
            out = out * share_1HT.unsqueeze(-1).to(out.dtype)
        return out[0].transpose(0, 1)  # type: ignore[no-any-return]


def score_mod(rule: LayerRule) -> Callable[..., Tensor] | None:
    """The layer's soft cap, as flex_attention asks for it."""
    cap = rule.cap
    if cap is None:
        return None

    def capped(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


@cache
def _flex(device_type: str) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    chosen: Any = torch.compile(flex_attention, dynamic=True) if device_type == "cuda" else flex_attention
    return chosen  # type: ignore[no-any-return]


@cache
def kernels() -> tuple[Kernel, ...]:
    """What is installed, the fastest first."""
    found: list[Kernel] = []
    if importlib.util.find_spec("flash_attn_interface") is not None:
        from flash_attn_interface import flash_attn_varlen_func as third

        found.append(_flash_varlen("flash-attn 3", third))
    if importlib.util.find_spec("torch.nn.attention.varlen") is not None:
        from torch.nn.attention.varlen import varlen_attn

        found.append(_torch_varlen(varlen_attn))
    if importlib.util.find_spec("flash_attn") is not None:
        from flash_attn import flash_attn_varlen_func as second

        found.append(_flash_varlen("flash-attn 2", second))
    return (*found, Flex())


@cache
def choose_kernel(problem: Problem) -> Kernel | None:
    """The first kernel that fits and passes its trial; None: use buckets of SDPA."""
    for kernel in kernels():
        if kernel.fits(problem):
            reason = trial(kernel, problem)
            if reason is None:
                return kernel
            warnings.warn(f"attention: {kernel.name} is passed over: {reason}", RuntimeWarning, stacklevel=2)
    return None


def trial(kernel: Kernel, problem: Problem) -> str | None:
    """Why `kernel` must not be used: it fails, or differs from the dense result in values or gradients."""
    segments = (Segment(0, 12), Segment(12, 21, 0), Segment(21, 26, 0), Segment(26, 43))
    plans = AttentionMetadata(segments, problem.device)
    generator = torch.Generator().manual_seed(0)
    heads = (problem.num_heads, problem.num_kv_heads, problem.num_kv_heads)
    query, key, value = (
        torch.randn(count, 43, problem.head_size, generator=generator).to(problem.device, problem.dtype)
        for count in heads
    )
    rule = LayerRule(
        scale=problem.head_size**-0.5,
        window=8 if problem.has_window else None,
        cap=2.0 if problem.has_cap else None,
        sinks_H=torch.linspace(-1, 1, heads[0]).to(problem.device) if problem.has_sinks else None,
    )
    try:
        with torch.enable_grad(), torch.autocast(problem.device.type, enabled=False):
            mine = _with_gradients(lambda q, k, v: kernel.attend(q, k, v, plans, rule), query, key, value)
            dense = _with_gradients(
                lambda q, k, v: dense_row(q, k, v, plans.flex, rule),
                query.float(),
                key.float(),
                value.float(),
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever keeps a kernel from running here
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    for left, right in zip(mine, dense, strict=True):
        apart = float((left.float() - right).norm() / right.norm())
        if not apart <= TRIAL_ERROR:
            return f"it differs from the dense result by {apart:.2g} of its length"
    return None


def dense_row(
    query_HTE: Tensor, key_KTE: Tensor, value_KTE: Tensor, plan: FlexPlan, rule: LayerRule
) -> Tensor:
    """output_THE by one mask over all pairs of tokens: the definition that kernels are compared with."""
    at = torch.arange(query_HTE.shape[1], device=query_HTE.device)
    none = torch.zeros((), dtype=torch.long, device=query_HTE.device)
    mask_TT = plan.mask_mod(rule.window)(none, none, at[:, None], at[None, :])
    plain = replace(rule, window=None, dropout=0.0)
    return dense_attention(query_HTE[None], key_KTE[None], value_KTE[None], mask_TT, plain)[0].transpose(0, 1)


def _with_gradients(attend: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [one.detach().requires_grad_() for one in inputs]
    out = attend(*leaves)
    weights = torch.linspace(-1, 1, out.shape[-1], device=out.device, dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]
