"""Micro-batches: every sample once, the budget kept, no padding, shared prompts once."""

import random

from verl_lite.engine import TrainingSample
from verl_lite.engine.config import LearnerConfig
from verl_lite.engine.learner import (
    Segment,
    pack,
    pack_padded,
    shared_tokens,
    split_micro_batches,
)


def sample(prompt, completion) -> TrainingSample:
    return TrainingSample(prompt_ids=prompt, completion_ids=completion)


def ragged(count=40, seed=0):
    rng = random.Random(seed)
    prompts = [[rng.randrange(50) for _ in range(rng.randint(1, 60))] for _ in range(8)]
    return [
        sample(rng.choice(prompts), [rng.randrange(50) for _ in range(rng.randint(1, 90))])
        for _ in range(count)
    ]


def test_a_packed_row_by_hand():
    samples = [sample([1, 2], [3, 4, 5]), sample([6], [7])]
    batch = pack(samples, [0, 1], [0, 0])
    assert batch.sample_indices == (1, 0)  # shorter first
    assert batch.input_ids_RL.tolist() == [[6, 1, 2, 3, 4]]
    assert batch.position_ids_RL.tolist() == [[0, 0, 1, 2, 3]]
    assert batch.segments == (Segment(0, 1), Segment(1, 5))
    assert batch.predict_from_N.tolist() == [0, 2, 3, 4]
    assert batch.targets_N.tolist() == [7, 3, 4, 5]
    assert batch.sequence_N.tolist() == [0, 1, 1, 1]


def test_a_shared_prompt_stands_once_and_predicts_every_first_token():
    samples = [sample([1, 2], [3, 4, 5]), sample([1, 2], [8]), sample([1, 2], [6, 7])]
    batch = pack(samples, [0, 1, 2], [2] * 3)
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
    for shared in ([0] * 40, [len(one.prompt_ids) for one in samples]):
        plan = split_micro_batches(samples, max_tokens=200, shared=shared)
        assert sorted(i for members in plan for i in members) == list(range(40))
        sizes = [pack(samples, members, shared).input_ids_RL.numel() for members in plan]
        assert max(sizes) <= 200
        assert sum(size < 100 for size in sizes) <= 1, "two half-empty micro-batches could have been one"


def test_packing_computes_no_padding_and_padded_batches_are_of_similar_length():
    samples = ragged()
    real = sum(len(s.prompt_ids) + len(s.completion_ids) - 1 for s in samples)
    none = [0] * 40
    packed = split_micro_batches(samples, max_tokens=400, shared=none)
    assert sum(pack(samples, m, none).input_ids_RL.numel() for m in packed) == real
    padded = split_micro_batches(samples, max_tokens=400, shared=none, padded=True)
    sizes = [pack_padded(samples, m, 0).input_ids_RL.numel() for m in padded]
    assert max(sizes) <= 400
    assert sum(sizes) < 1.25 * real


def test_a_sample_over_the_budget_is_alone():
    samples = [sample([1] * 50, [2] * 60), sample([1], [2, 3])]
    assert split_micro_batches(samples, max_tokens=64, shared=[0, 0]) == [[0], [1]]


def test_a_group_over_the_budget_is_cut():
    samples = [sample([1] * 30, [2] * 9 + [index, 3]) for index in range(8)]
    plan = split_micro_batches(samples, max_tokens=75, shared=[30] * 8)
    assert [len(members) for members in plan] == [4, 4]


def test_equal_completions_of_a_shared_prompt_are_computed_once():
    samples = [
        sample([1, 2], [3, 4, 5]),
        sample([1, 2], [3, 4, 5]),
        sample([1, 2], [3, 4, 6]),
        sample([1], [3, 4]),
    ]
    batch = pack(samples, [0, 1, 2, 3], [2] * 3 + [0])
    assert batch.input_ids_RL.tolist() == [[1, 2, 3, 4, 1, 3]]
    assert batch.segments == (Segment(0, 2), Segment(2, 4, 0), Segment(4, 6))
    assert batch.predict_from_N.tolist() == [1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 5]
    assert batch.targets_N.tolist() == [3, 4, 5, 3, 4, 5, 3, 4, 6, 3, 4]
    assert split_micro_batches(samples[:3], max_tokens=4, shared=[2] * 3) == [[0, 1, 2]]
    apart = pack(samples, [0, 1], [0, 0])
    assert apart.input_ids_RL.tolist() == [[1, 2, 3, 4, 1, 2, 3, 4]]


def split_trajectory():
    """Two samples of one prompt; one goes on in two more, which rewrite what was said (9 becomes 8)."""
    return [
        sample([1, 2, 3], [9, 4]),
        sample([1, 2, 3, 8, 5], [6, 7]),
        sample([1, 2, 3, 8, 5, 6, 5], [4, 4]),
        sample([1, 2, 3], [7]),
        sample([4, 4, 4], [7]),
    ]


def test_the_samples_of_a_split_trajectory_share_its_first_prompt():
    samples = split_trajectory()
    shared = shared_tokens(samples, LearnerConfig(share_prompts="always"))
    assert shared == [3, 3, 3, 3, 0]
    assert shared_tokens(samples, LearnerConfig(share_prompts_min_tokens=4)) == [0] * 5
    batch = pack(samples, range(5), shared)
    assert batch.sample_indices == (3, 0, 1, 2, 4)
    assert batch.input_ids_RL.tolist() == [[1, 2, 3, 9, 8, 5, 6, 8, 5, 6, 5, 4, 4, 4, 4]]
    assert batch.position_ids_RL.tolist() == [[0, 1, 2, 3, 3, 4, 5, 3, 4, 5, 6, 7, 0, 1, 2]]
    assert batch.segments == (
        Segment(0, 3), Segment(3, 4, 0), Segment(4, 7, 0), Segment(7, 12, 0), Segment(12, 15),
    )  # fmt: skip
    assert batch.predict_from_N.tolist() == [2, 2, 3, 5, 6, 10, 11, 14]
    (members,) = split_micro_batches(samples[:4], max_tokens=12, shared=shared[:4])
    assert sorted(members) == [0, 1, 2, 3]


def test_a_prompt_of_several_samples_is_shared_whole_though_it_begins_with_another():
    samples = [sample([1], [2]), sample([1, 2], [3]), sample([1, 2], [4]), sample([1, 3], [4])]
    assert shared_tokens(samples, LearnerConfig(share_prompts="always")) == [1, 2, 2, 1]
