"""Attention of a packed row: every implementation against one mask over all pairs of tokens.

What a GPU runs is tested here as far as a CPU can: FlashAttention by a dense stand-in with its signature,
which tests the plan it is given; flex_attention by its own eager forward pass, and its mask and score
functions by evaluating them for all pairs.
"""

import warnings
from dataclasses import replace

import pytest
import torch

from verl_lite.engine.learner import (
    AttentionMetadata,
    LayerRule,
    Segment,
    attention as interface,
    attention_buckets as in_buckets,
    attention_kernels as module,
    attention_plans,
    packed_attention,
)
from verl_lite.engine.learner.attention_kernels import Problem
from verl_lite.engine.learner.attention_plans import FlexPlan, VarlenPlan

CPU = torch.device("cpu")


def row_of(*pieces) -> list[Segment]:
    """Segments end to end from (length, prefix) pairs."""
    segments: list[Segment] = []
    for length, prefix in pieces:
        start = segments[-1].end if segments else 0
        segments.append(Segment(start, start + length, prefix))
    return segments


ROWS = [
    pytest.param(
        row_of((9, None), (3, 0), (4, 0), (24, 0), (5, None), (2, 4), (13, None), (14, None)),
        5,
        id="two prompts of other lengths",
    ),
    pytest.param(
        row_of((5, None), (3, 0), (4, 0), (5, None), (6, 3), (40, 3), (7, None), (2, 6), (5, None), (4, 8)),
        4,
        id="three prompts of one length attend together, one of another apart",
    ),
    pytest.param(row_of((30, None), (31, None), (29, None)), 1, id="nothing shared"),
]
RULES = [(None, False), (1.5, False), (None, True), (0.7, True)]


def inputs(segments, *, E=16, dtype=torch.float64):
    torch.manual_seed(0)
    T = segments[-1].end
    return [torch.randn(heads, T, E, dtype=dtype, requires_grad=True) for heads in (4, 2, 2)]


def rule_of(window, cap, sinks):
    sinks_H = torch.linspace(-1, 1, 4, dtype=torch.float64) if sinks else None
    return LayerRule(scale=0.3, window=window, cap=cap, sinks_H=sinks_H)


def visible_pairs(segments, window):
    """mask_TT written out from the definition of a packed row."""
    T = segments[-1].end
    mask = torch.zeros(T, T, dtype=torch.bool)
    for s in segments:
        mask[s.start : s.end, s.start : s.end] = torch.ones(s.end - s.start, s.end - s.start).tril().bool()
        if s.prefix is not None:
            mask[s.start : s.end, segments[s.prefix].start : segments[s.prefix].end] = True
    if window is not None:
        sizes = [s.end - s.start for s in segments]
        before = [0 if s.prefix is None else sizes[s.prefix] for s in segments]
        positions = torch.cat([torch.arange(b, b + size) for b, size in zip(before, sizes, strict=True)])
        mask &= positions[:, None] - positions[None, :] < window
    return mask


def dense(query, key, value, segments, rule):
    """output_THE with all scores at once, by the formulas alone."""
    scores = query @ key.repeat_interleave(2, 0).transpose(1, 2) * rule.scale
    scores = scores if rule.cap is None else rule.cap * torch.tanh(scores / rule.cap)
    scores = scores.masked_fill(~visible_pairs(segments, rule.window), -torch.inf)
    T = scores.shape[1]
    if rule.sinks_H is not None:
        scores = torch.cat((scores, rule.sinks_H[:, None, None].expand(-1, T, 1)), dim=-1)
    return (scores.softmax(-1)[..., :T] @ value.repeat_interleave(2, 0)).transpose(0, 1)


def flash(query, key, value, begin_q, begin_k, longest_q, longest_k, *, scale, window, cap=None):
    """FlashAttention's definition: causal from the bottom right; `window` is (left, 0)."""
    outputs = []
    sizes = [(begin_q.diff(), longest_q), (begin_k.diff(), longest_k)]
    assert all(int(size.max()) == longest for size, longest in sizes)
    assert begin_q.dtype == begin_k.dtype == torch.int32
    for q0, q1, k0, k1 in zip(begin_q[:-1], begin_q[1:], begin_k[:-1], begin_k[1:], strict=True):
        q, k, v = query[q0:q1], key[k0:k1], value[k0:k1]
        repeats = q.shape[1] // k.shape[1]
        scores = torch.einsum("qhe,khe->hqk", q, k.repeat_interleave(repeats, 1)) * scale
        scores = scores if not cap else cap * torch.tanh(scores / cap)
        distance = torch.arange(len(q))[:, None] + len(k) - len(q) - torch.arange(len(k))[None]
        hidden = (distance < 0) | ((distance > window[0]) if window[0] >= 0 else torch.zeros(()).bool())
        shares = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        outputs.append(torch.einsum("hqk,khe->qhe", shares, v.repeat_interleave(repeats, 1)))
    return torch.cat(outputs)


def newest_torch(
    query, key, value, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    """The signature of torch 2.12 and later."""
    assert enable_gqa == (query.shape[1] != key.shape[1])
    return flash(query, key, value, cu_q, cu_k, max_q, max_k, scale=scale, window=window_size)


def middle_torch(query, key, value, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
    return flash(query, key, value, cu_q, cu_k, max_q, max_k, scale=scale, window=window_size)


def flash_attn(query, key, value, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale,
               causal, window_size, softcap, deterministic):  # fmt: skip
    """The arguments of flash_attn_varlen_func; version 3 may return the log-sum-exp too."""
    assert causal
    begins = (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    return flash(query, key, value, *begins, scale=softmax_scale, window=window_size, cap=softcap), None


VARLEN = {
    "torch, newest": module._torch_varlen(newest_torch),
    "torch 2.11": module._torch_varlen(middle_torch),
    "flash-attn": module._flash_varlen("flash-attn", flash_attn),
}


def compare(out, expected, inner):
    torch.testing.assert_close(out, expected)
    seed = torch.randn(out.shape, dtype=out.dtype)
    theirs = torch.autograd.grad((expected * seed).sum(), inner, retain_graph=True)
    for left, right in zip(torch.autograd.grad((out * seed).sum(), inner), theirs, strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize(("segments", "num_buckets"), ROWS)
@pytest.mark.parametrize("window", [None, 1, 8, 1000])
@pytest.mark.parametrize(("cap", "sinks"), RULES)
def test_every_implementation_equals_a_dense_mask(segments, num_buckets, window, cap, sinks):
    """Segments, shared prompts, grouped heads, ragged completions, windows, caps and sinks."""
    query, key, value = inner = inputs(segments)
    plan, rule = AttentionMetadata(segments, CPU), rule_of(window, cap, sinks)
    expected = dense(query, key, value, segments, rule)
    assert len(plan.buckets.buckets) == num_buckets
    compare(packed_attention(query, key, value, plan, rule), expected, inner)
    compare(module.dense_row(query, key, value, plan.flex, rule), expected, inner)  # the mask function
    half = replace(Problem.of(query, key, rule, repeated=plan.num_repeated), dtype=torch.bfloat16)
    fitting = [kernel for kernel in VARLEN.values() if kernel.fits(half)]
    for kernel in fitting:
        compare(kernel.attend(query, key, value, plan, rule), expected, inner)
    names = {"flash-attn", *(() if cap else ("torch, newest", "torch 2.11"))}
    assert {name for name in VARLEN if VARLEN[name] in fitting} == (set() if sinks else names)


@pytest.mark.parametrize("segments", [row.values[0] for row in ROWS])
@pytest.mark.parametrize(("window", "cap", "sinks"), [(None, None, False), (8, 0.7, True)])
def test_flex_attention_gets_the_right_mask_scale_cap_and_sinks(segments, window, cap, sinks):
    query, key, value = (x.detach() for x in inputs(segments))
    plan, rule = AttentionMetadata(segments, CPU), rule_of(window, cap, sinks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eager flex_attention keeps all scores, and says so
        out = module.Flex().attend(query, key, value, plan, rule)
    torch.testing.assert_close(out, dense(query, key, value, segments, rule))
    assert plan.flex.block_mask(window) is plan.flex.block_mask(window), "one block mask for all layers"


@pytest.mark.slow
def test_the_block_mask_of_a_gpu_is_compiled_once_for_rows_of_all_lengths(monkeypatch):
    """As on a GPU, without its code generator; a warning of torch's would be an error here."""
    graphs, torch_compile = [], torch.compile

    def count(graph, _):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(
        torch, "compile", lambda function, **how: torch_compile(function, backend=count, **how)
    )
    make, counts = attention_plans._block_mask_maker.__wrapped__("cuda"), []
    for first in (12, 100, 333):
        segments = row_of((first, None), (5, 0), (7, 0), (30 + first, None))
        plan, size = FlexPlan.of(segments, CPU), segments[-1].end
        for window in (None, 8):
            found = make(plan.mask_mod(window), None, None, size, size, device=CPU)
            assert torch.equal(found.to_dense(), plan.block_mask(window).to_dense())
        counts.append(len(graphs))
    assert counts[1] == counts[2]


def test_the_plan_of_varlen_by_hand():
    plan = VarlenPlan.of(row_of((3, None), (2, 0), (1, 0), (4, None)), CPU)
    assert plan.gather_S.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 5, 6, 7, 8, 9]
    assert plan.begin_queries.tolist() == [0, 3, 5, 6, 10]
    assert plan.begin_keys.tolist() == [0, 3, 8, 12, 16]
    assert (plan.longest_query, plan.longest_key) == (4, 5)
    assert VarlenPlan.of(row_of((3, None), (4, None)), CPU).gather_S is None


def test_the_plan_of_flex_by_hand():
    plan = FlexPlan.of(row_of((3, None), (2, 0), (1, None)), CPU)
    assert plan.segment_T.tolist() == [0, 0, 0, 1, 1, 2]
    assert plan.prefix_T.tolist() == [-1, -1, -1, 0, 0, -1]
    assert plan.position_T.tolist() == [0, 1, 2, 3, 4, 0]


def problem(**changes):
    base = Problem(
        dtype=torch.bfloat16, device=CPU, head_size=128, num_heads=4, num_kv_heads=2, has_window=False,
        has_cap=False, has_sinks=False, has_dropout=False, repeats_much=False,
    )  # fmt: skip
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({}, "torch varlen_attn"),
        ({"has_window": True}, "torch varlen_attn"),
        ({"dtype": torch.float32}, None),
        ({"dtype": torch.float32, "has_cap": True}, "flex_attention"),
        ({"has_cap": True}, "flex_attention"),
        ({"has_sinks": True}, "flex_attention"),
        ({"head_size": 512}, "flex_attention"),
        ({"repeats_much": True}, "flex_attention"),
        ({"has_dropout": True}, None),
        ({"head_size": 8, "dtype": torch.float32}, None),
    ],
)
def test_the_table_that_chooses(monkeypatch, changes, chosen):
    monkeypatch.setattr(module, "trial", lambda kernel, problem: None)
    found = module.choose_kernel.__wrapped__(problem(**changes))
    assert (found.name if found else None) == chosen


def test_prompts_repeated_for_many_short_completions_go_to_flex():
    def repeats_much(segments):
        query, key, _ = inputs(segments)
        plan = AttentionMetadata(segments, CPU)
        return Problem.of(query, key, LayerRule(scale=1.0), repeated=plan.num_repeated).repeats_much

    assert repeats_much(row_of((1000, None), *[(10, 0)] * 8))
    assert not repeats_much(row_of((100, None), *[(200, 0)] * 8))


class Wrong:
    """A kernel that is wrong in one way; right for `error` None."""

    name = "wrong"

    def __init__(self, error):
        self.error = error

    def fits(self, problem):
        return True

    def attend(self, query, key, value, plans, rule):
        if self.error == "fails":
            raise RuntimeError("no kernel image is available\nfor this device")
        if self.error == "gradient":
            key = key.detach() + 0 * key
        if self.error == "window":
            rule = replace(rule, window=None)
        return module.dense_row(query, key, value, plans.flex, rule)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, None),
        ("fails", "RuntimeError: no kernel image is available"),
        ("gradient", "differs from the dense result"),
        ("window", "differs from the dense result"),
    ],
)
def test_a_kernel_must_pass_its_trial(monkeypatch, error, reason):
    kernel = Wrong(error)
    found = module.trial(kernel, problem(has_window=True, head_size=16))
    assert found is None if reason is None else reason in found
    monkeypatch.setattr(module, "kernels", lambda: (kernel,))
    choose = module.choose_kernel.__wrapped__
    if reason is None:
        assert choose(problem(has_window=True, head_size=16)) is kernel
    else:
        with pytest.warns(RuntimeWarning, match="wrong is passed over"):
            assert choose(problem(has_window=True, head_size=16)) is None


def test_the_real_varlen_of_torch_is_tried_and_passed_over_on_the_cpu():
    """Its kernel is for CUDA: the trial says so instead of failing in the first step."""
    (kernel,) = (one for one in module.kernels() if one.name == "torch varlen_attn")
    assert module.trial(kernel, problem()) is not None


def test_a_row_on_a_gpu_goes_to_the_chosen_kernel(monkeypatch):
    segments = row_of((9, None), (3, 0))
    query, key, value = inputs(segments, dtype=torch.float32)

    class OnGpu(torch.Tensor):
        is_cuda = True

    chosen = []
    monkeypatch.setattr(
        interface, "choose_kernel", lambda problem: chosen.append(problem) or VARLEN["flash-attn"]
    )
    plan, rule = AttentionMetadata(segments, CPU), LayerRule(scale=0.3)
    out = packed_attention(query.detach().as_subclass(OnGpu), key, value, plan, rule)
    torch.testing.assert_close(
        out.as_subclass(torch.Tensor), dense(query, key, value, segments, rule).detach()
    )
    assert chosen[0].num_kv_heads == 2


def test_grouped_heads_with_a_mask_are_expanded_on_a_gpu(monkeypatch):
    """torch documents only the math kernel for them, which keeps every score."""
    seen = []
    real = in_buckets.scaled_dot_product_attention

    def spying(query, key, value, **options):
        seen.append((key.shape[1], options["enable_gqa"]))
        return real(query, key, value, **options)

    monkeypatch.setattr(in_buckets, "scaled_dot_product_attention", spying)
    query, key, value = (torch.randn(1, heads, 6, 8, device=CPU) for heads in (4, 2, 2))
    mask, rule = torch.ones(6, 6).tril().bool(), LayerRule(scale=0.3)
    on_cpu = in_buckets._attend(query, key, value, mask, rule)
    monkeypatch.setattr(in_buckets, "_has_only_math", lambda query: True)
    torch.testing.assert_close(in_buckets._attend(query, key, value, mask, rule), on_cpu)
    in_buckets._attend(query, key, value, None, rule)
    assert seen == [(2, True), (4, False), (2, True)]
