"""Micro-batches: every sample once, the budget kept, no padding, shared prompts once."""

import random

import pytest
import torch

from verl_lite.engine import TrainingSample
from verl_lite.engine.learner import (
    LayerRule,
    Segment,
    attention_metadata,
    pack,
    pack_padded,
    packed_attention,
    split_micro_batches,
)


def sample(prompt, completion) -> TrainingSample:
    return TrainingSample(
        prompt_ids=prompt, completion_ids=completion, sampler_logprobs_T=(), advantages_T=(), loss_mask_T=()
    )


def ragged(count=40, seed=0):
    rng = random.Random(seed)
    prompts = [[rng.randrange(50) for _ in range(rng.randint(1, 60))] for _ in range(8)]
    return [
        sample(rng.choice(prompts), [rng.randrange(50) for _ in range(rng.randint(1, 90))])
        for _ in range(count)
    ]


def test_a_packed_row_by_hand():
    samples = [sample([1, 2], [3, 4, 5]), sample([6], [7])]
    batch = pack(samples, [0, 1], [False, False])
    assert batch.sample_indices == (1, 0)  # shorter first
    assert batch.input_ids_RL.tolist() == [[6, 1, 2, 3, 4]]
    assert batch.position_ids_RL.tolist() == [[0, 0, 1, 2, 3]]
    assert batch.segments == (Segment(0, 1), Segment(1, 5))
    assert batch.predict_from_N.tolist() == [0, 2, 3, 4]
    assert batch.targets_N.tolist() == [7, 3, 4, 5]
    assert batch.sequence_N.tolist() == [0, 1, 1, 1]


def test_a_shared_prompt_stands_once_and_predicts_every_first_token():
    samples = [sample([1, 2], [3, 4, 5]), sample([1, 2], [8]), sample([1, 2], [6, 7])]
    batch = pack(samples, [0, 1, 2], [True] * 3)
    assert batch.input_ids_RL.tolist() == [[1, 2, 6, 3, 4]]
    assert batch.position_ids_RL.tolist() == [[0, 1, 2, 2, 3]]
    assert batch.segments == (Segment(0, 2), Segment(2, 3, 0), Segment(3, 5, 0))
    assert batch.sample_indices == (1, 2, 0)
    assert batch.predict_from_N.tolist() == [1, 1, 2, 1, 3, 4]
    assert batch.targets_N.tolist() == [8, 6, 7, 3, 4, 5]


def test_padded_rows_by_hand():
    batch = pack_padded([sample([1, 2], [3, 4]), sample([6], [7])], [0, 1], pad_token_id=0)
    assert batch.input_ids_RL.tolist() == [[1, 2, 3], [6, 0, 0]]
    assert batch.predict_from_N.tolist() == [1, 2, 3]
    assert batch.targets_N.tolist() == [3, 4, 7]


def test_plans_hold_every_sample_once_within_the_budget():
    samples = ragged()
    for shared in ([False] * 40, [True] * 40):
        plan = split_micro_batches(samples, max_tokens=200, shared=shared)
        assert sorted(i for members in plan for i in members) == list(range(40))
        sizes = [pack(samples, members, shared).input_ids_RL.numel() for members in plan]
        assert max(sizes) <= 200
        assert sum(size < 100 for size in sizes) <= 1, "two half-empty micro-batches could have been one"


def test_packing_computes_no_padding_and_padded_batches_are_of_similar_length():
    samples = ragged()
    real = sum(len(s.prompt_ids) + len(s.completion_ids) - 1 for s in samples)
    none = [False] * 40
    packed = split_micro_batches(samples, max_tokens=400, shared=none)
    assert sum(pack(samples, m, none).input_ids_RL.numel() for m in packed) == real
    padded = split_micro_batches(samples, max_tokens=400, shared=none, padded=True)
    sizes = [pack_padded(samples, m, 0).input_ids_RL.numel() for m in padded]
    assert max(sizes) <= 400
    assert sum(sizes) < 1.25 * real


def test_a_sample_over_the_budget_is_alone():
    samples = [sample([1] * 50, [2] * 60), sample([1], [2, 3])]
    assert split_micro_batches(samples, max_tokens=64, shared=[False, False]) == [[0], [1]]


def test_a_group_over_the_budget_is_cut():
    samples = [sample([1] * 30, [2] * 9 + [index, 3]) for index in range(8)]
    plan = split_micro_batches(samples, max_tokens=75, shared=[True] * 8)
    assert [len(members) for members in plan] == [4, 4]


def test_equal_completions_of_a_shared_prompt_are_computed_once():
    samples = [
        sample([1, 2], [3, 4, 5]),
        sample([1, 2], [3, 4, 5]),
        sample([1, 2], [3, 4, 6]),
        sample([1], [3, 4]),
    ]
    batch = pack(samples, [0, 1, 2, 3], [True] * 3 + [False])
    assert batch.input_ids_RL.tolist() == [[1, 2, 3, 4, 1, 3]]
    assert batch.segments == (Segment(0, 2), Segment(2, 4, 0), Segment(4, 6))
    assert batch.predict_from_N.tolist() == [1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 5]
    assert batch.targets_N.tolist() == [3, 4, 5, 3, 4, 5, 3, 4, 6, 3, 4]
    assert split_micro_batches(samples[:3], max_tokens=4, shared=[True] * 3) == [[0, 1, 2]]
    apart = pack(samples, [0, 1], [False, False])
    assert apart.input_ids_RL.tolist() == [[1, 2, 3, 4, 1, 2, 3, 4]]


def row_of(*pieces) -> list[Segment]:
    """Segments end to end from (length, prefix) pairs."""
    segments: list[Segment] = []
    for length, prefix in pieces:
        start = segments[-1].end if segments else 0
        segments.append(Segment(start, start + length, prefix))
    return segments


@pytest.mark.parametrize(
    ("segments", "num_buckets"),
    [
        pytest.param(
            row_of((9, None), (3, 0), (4, 0), (24, 0), (5, None), (2, 4), (13, None), (14, None)), 5,
            id="two prompts of other lengths",
        ),
        pytest.param(
            row_of((5, None), (3, 0), (4, 0), (5, None), (6, 3), (40, 3), (7, None), (2, 6), (5, None),
                   (4, 8)),
            4,
            id="three prompts of one length attend together, one of another apart",
        ),
        pytest.param(row_of((30, None), (31, None), (29, None)), 1, id="nothing shared"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("window", [None, 1, 8, 1000])
@pytest.mark.parametrize(("cap", "sinks"), [(None, False), (1.5, False), (None, True), (0.7, True)])
def test_packed_attention_equals_a_dense_mask(segments, num_buckets, window, cap, sinks):
    """Segments, shared prompts, ragged completions, windows, caps and sinks against one T x T mask."""
    T, H, K, E = segments[-1].end, 4, 2, 8
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(heads, T, E, dtype=torch.float64, requires_grad=True) for heads in (H, K, K)
    )
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
    scores = query @ key.repeat_interleave(2, 0).transpose(1, 2) * 0.3
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~mask, -torch.inf)
    extra = torch.linspace(-1, 1, H, dtype=torch.float64) if sinks else None
    if extra is not None:
        scores = torch.cat((scores, extra[:, None, None].expand(H, T, 1)), dim=-1)
    dense = scores.softmax(-1)[..., :T] @ value.repeat_interleave(2, 0)
    plan = attention_metadata(segments, torch.device("cpu"))
    assert len(plan.buckets) == num_buckets
    rule = LayerRule(scale=0.3, window=window, cap=cap, sinks_H=extra)
    packed = packed_attention(query, key, value, plan, rule)
    torch.testing.assert_close(packed, dense.transpose(0, 1))
    seed = torch.randn(T, H, E, dtype=torch.float64)
    expected = torch.autograd.grad(
        (dense.transpose(0, 1) * seed).sum(), (query, key, value), retain_graph=True
    )
    got = torch.autograd.grad((packed * seed).sum(), (query, key, value))
    for left, right in zip(got, expected, strict=True):
        torch.testing.assert_close(left, right)
