"""Several turns: only sampled tokens are trained and discounted, parts share the advantage; by hand."""

from typing import Any

import pytest

from verl_lite.engine.algorithm.advantages import estimate_advantages
from verl_lite.engine.config import AlgorithmConfig
from verl_lite.engine.types import StepBatch, TokenStatistics, TrainingSample
from verl_lite.plugins import Rollout, SamplerSettings, ScoredBatch, ScoredRollout, Segment, Turn


def row(reward: float, *, group: str = "g", token_rewards: Any = (), **fields: Any) -> ScoredRollout:
    """Two sampled tokens, two of a tool, one sampled: 5 tokens behind the prompt (1, 2)."""
    turns = (
        Turn(role="assistant", content="call", start=0, end=2),
        Turn(role="tool", content="7", start=2, end=4),
        Turn(role="assistant", content="7", start=4, end=5),
    )
    rollout = Rollout(
        id=str(reward),
        group=group,
        completion="7",
        prompt_ids=(1, 2),
        completion_ids=(10, 11, 12, 13, 14),
        logprobs=(-0.1, -0.2, 0.0, 0.0, -0.3),
        turns=turns,
        **fields,
    )
    return ScoredRollout(rollout=rollout, components={}, reward=reward, token_rewards=token_rewards)


def by(advantage: str, **fields: Any) -> AlgorithmConfig:
    return AlgorithmConfig.model_validate({"advantage": advantage, **fields})


def test_the_loss_mask_is_one_on_sampled_tokens_only() -> None:
    samples = estimate_advantages([row(1.0), row(0.0)], by("dr_grpo"))
    assert [list(sample.loss_mask_T) for sample in samples] == [[1, 1, 0, 0, 1]] * 2
    assert [sample.advantages_T[0] for sample in samples] == [0.5, -0.5]
    assert list(samples[0].sampler_logprobs_T) == [-0.1, -0.2, 0.0, 0.0, -0.3]


def test_a_truncated_trajectory_is_masked_whatever_budget_ended_it() -> None:
    config = by("dr_grpo", overlong={"mode": "mask"})
    for reason in ("length", "turns", "tool_seconds", "context"):
        (sample,) = estimate_advantages([row(1.0, finish_reason=reason)], config)
        assert sum(sample.loss_mask_T) == 0


def test_the_overlong_penalty_counts_sampled_tokens() -> None:
    config = by("none", overlong={"mode": "shape", "buffer_tokens": 2, "penalty": 1.0})
    settings = SamplerSettings(max_new_tokens=4)
    scored = [row(1.0, sampling=settings), row(1.0, sampling=settings, group="other")]
    samples = estimate_advantages(scored, by("reinforce_pp", overlong=config.overlong, whiten=False))
    assert all(value == 0.0 for sample in samples for value in sample.advantages_T)  # 3 of 4: both -0.5


def test_gae_discounts_over_sampled_tokens_alone() -> None:
    """Values 1, 2, -, -, 4 and reward 10 at the end, gamma 0.5, lambda 1: deltas 0, 0, 6."""
    statistics = [TokenStatistics(values_T=[1.0, 2.0, 99.0, 99.0, 4.0])]
    (sample,) = estimate_advantages([row(10.0)], by("gae", critic={}, gamma=0.5, lam=1.0), statistics)
    assert list(sample.advantages_T) == [1.5, 3.0, 0.0, 0.0, 6.0]
    assert list(sample.returns_T) == [2.5, 5.0, 0.0, 0.0, 10.0]


def test_turn_level_gae_discounts_from_turn_to_turn() -> None:
    """Turn values 1 and 4, rewards 0 and 10, gamma 0.5, lambda 1: deltas 0.5 * 4 - 1 = 1 and 10 - 4 = 6."""
    statistics = [TokenStatistics(values_T=[1.0, 2.0, 99.0, 99.0, 4.0])]
    config = by("gae", critic={}, gamma=0.5, lam=1.0, gae_over="turns")
    (sample,) = estimate_advantages([row(10.0)], config, statistics)
    assert list(sample.advantages_T) == [4.0, 4.0, 0.0, 0.0, 6.0]
    assert list(sample.returns_T) == [5.0, 5.0, 0.0, 0.0, 10.0]
    with pytest.raises(ValueError, match="gae_over=turns is for advantage: gae"):
        by("grpo", gae_over="turns")


def test_a_process_reward_of_a_tool_s_answer_counts_at_the_call() -> None:
    """Rewards 0, 0, 2 (tool), 0, 0 plus outcome 1: returns 3, 3, 1, standardised over 6 sampled tokens."""
    scored = [row(1.0, token_rewards=(0.0, 0.0, 2.0, 0.0, 0.0)), row(1.0, token_rewards=(0.0,) * 5)]
    first, second = estimate_advantages(scored, by("process"))
    assert first.advantages_T[2:4] == [0.0, 0.0]
    sampled = [first.advantages_T[at] for at in (0, 1, 4)] + [second.advantages_T[at] for at in (0, 1, 4)]
    mean, std = (3 + 3 + 1 + 1 + 1 + 1) / 6, (8 / 9) ** 0.5
    assert sampled == pytest.approx([(value - mean) / std for value in (3, 3, 1, 1, 1, 1)], abs=1e-5)


def test_kl_in_the_reward_counts_sampled_tokens_alone() -> None:
    config = by("reinforce_pp", kl={"coefficient": 1.0, "placement": "reward", "estimator": "k1"})
    statistics = [
        TokenStatistics(
            old_logprobs_T=[0.0, 0.0, 50.0, 50.0, 0.0], ref_logprobs_T=[-1.0, 0.0, 0.0, 0.0, 0.0]
        ),
        TokenStatistics(old_logprobs_T=[0.0] * 5, ref_logprobs_T=[0.0] * 5),
    ]
    first, second = estimate_advantages([row(1.0), row(1.0)], config, statistics)
    returns = [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]  # -1 at the first token of the first
    mean = sum(returns) / 6
    std = (sum((value - mean) ** 2 for value in returns) / 6) ** 0.5
    assert first.advantages_T[0] == pytest.approx((0.0 - mean) / std, abs=1e-5)
    assert second.advantages_T[0] == pytest.approx((1.0 - mean) / std, abs=1e-5)


def test_the_parts_of_a_rewritten_conversation_share_the_advantage() -> None:
    segments = (
        Segment(
            prompt_ids=(1, 2), completion_ids=(10, 11), logprobs=(-0.1, -0.2), sampled_mask=(1, 1), turns=(0,)
        ),
        Segment(
            prompt_ids=(1, 9), completion_ids=(12, 13, 14), logprobs=(0.0, 0.0, -0.3), sampled_mask=(0, 0, 1),
            turns=(2,),
        ),
    )  # fmt: skip
    scored = [row(1.0, segments=segments), row(0.0)]
    samples = estimate_advantages(scored, by("dr_grpo"))
    assert [(list(one.prompt_ids), list(one.completion_ids), one.part) for one in samples] == [
        ([1, 2], [10, 11], 0),
        ([1, 9], [12, 13, 14], 1),
        ([1, 2], [10, 11, 12, 13, 14], 0),
    ]
    assert [list(one.loss_mask_T) for one in samples] == [[1, 1], [0, 0, 1], [1, 1, 0, 0, 1]]
    assert [one.advantages_T[-1] for one in samples] == [0.5, 0.5, -0.5]
    batch = StepBatch(scored=ScoredBatch(rows=scored, metrics={}), groups=frozenset({"g"}))
    assert batch.advantages(samples) == [0.5, -0.5]
    assert all(isinstance(one, TrainingSample) for one in samples)
