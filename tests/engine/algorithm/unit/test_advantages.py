"""Advantage estimators against hand-computed numbers; dropped rows leave the baseline."""

import math
import statistics

import pytest

from verl_lite.engine import TokenStatistics
from verl_lite.engine.algorithm import (
    discounted_returns,
    estimate_advantages,
    gae,
    group_center,
    group_standardize,
    informative_groups,
    leave_one_out,
    mean_normalised,
    overlong_penalty,
)
from verl_lite.engine.config import AlgorithmConfig, CriticConfig, KLConfig, OverlongConfig
from verl_lite.lab import group_advantages
from verl_lite.plugins import ComponentScore, Rollout, SamplerSettings, Score, ScoredRollout, gdpo_advantages
from verl_lite.plugins.composite.metrics import batch_metrics


def row(reward, *, tokens=2, group="g", components=None, token_rewards=(), truncated=False) -> ScoredRollout:
    rollout = Rollout(
        completion="x" * tokens,
        prompt_ids=(1, 2),
        completion_ids=tuple(range(tokens)),
        logprobs=(-1.0,) * tokens,
        group=group,
        finish_reason="length" if truncated else "stop",
        sampling=SamplerSettings(max_new_tokens=10),
    )
    scores = {
        name: ComponentScore(score=Score(value), weight=weight, contribution=value)
        for name, (value, weight) in (components or {}).items()
    }
    dropped = "" if reward is not None else "error"
    return ScoredRollout(
        rollout=rollout,
        components=scores,
        reward=reward,
        dropped_because=dropped,
        token_rewards=token_rewards,
    )


def scalars(scored, config, *rest):
    """The advantage of each sample, which must be the same at all its tokens."""
    samples = estimate_advantages(scored, config, *rest)
    assert all(len(set(s.advantages_T)) == 1 for s in samples)
    return [s.advantages_T[0] for s in samples]


@pytest.mark.parametrize("estimator", [group_standardize, group_center, leave_one_out, mean_normalised])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_refused_wherever_it_stands(estimator, bad):
    for rewards in ([1.0, bad], [bad, 1.0], [bad], [bad, bad], [0.0, bad, 1.0]):
        with pytest.raises(ValueError, match=r"value \d of \d is (nan|-?inf): expected finite numbers"):
            estimator(rewards)


def test_maxrl_weighs_a_hard_prompt_by_one_over_its_success_rate():
    assert mean_normalised([1.0, 0.0, 0.0, 0.0]) == [3.0, -1.0, -1.0, -1.0]
    assert mean_normalised([1.0, 1.0, 1.0, 0.0]) == pytest.approx([1 / 3] * 3 + [-1.0])
    with pytest.raises(ValueError, match="divides by the mean reward"):
        mean_normalised([-1.0, 1.0])
    assert scalars([row(1.0), row(0.0)], AlgorithmConfig(advantage="maxrl")) == [1.0, -1.0]


def test_own_right_samples_are_imitated():
    """Of two equal right completions `rft` keeps one; what is wrong is in no component but the policy's."""
    rows = [row(1.0), row(0.5), row(1.2), row(1.0, tokens=3), row(1.0, group="other")]
    for advantage, expected in (("raft", [1, 0, 1, 1, 1]), ("rft", [1, 0, 0, 1, 1])):
        samples = estimate_advantages(rows, AlgorithmConfig(advantage=advantage))
        found = [sum(s.component("cross_entropy")) / len(s.completion_ids) for s in samples]
        assert found == expected
        assert not any(any(s.advantages_T) for s in samples)


def test_group_estimators_by_hand():
    rewards = [1.0, 0.0, 0.0, 0.0]
    std = math.sqrt(3) / 4
    assert group_standardize(rewards) == pytest.approx([0.75 / std] + [-0.25 / std] * 3, rel=1e-5)
    assert group_center(rewards) == [0.75, -0.25, -0.25, -0.25]
    assert leave_one_out(rewards) == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])


@pytest.mark.parametrize("estimator", [group_standardize, group_center, leave_one_out])
def test_equal_rewards_give_exactly_zero(estimator):
    assert estimator([0.1, 0.1, 0.1]) == [0.0, 0.0, 0.0]
    assert estimator([0.7]) == [0.0]


def test_groups_are_apart_whatever_the_order():
    scored = [row(1.0, group="a"), row(5.0, group="b"), row(0.0, group="a"), row(7.0, group="b")]
    assert scalars(scored, AlgorithmConfig(advantage="dr_grpo")) == [0.5, -1.0, -0.5, 1.0]
    assert scalars(scored, AlgorithmConfig()) == pytest.approx([1.0, -1.0, -1.0, 1.0], abs=1e-5)
    assert scalars(scored, AlgorithmConfig(advantage="rloo")) == [1.0, -2.0, -1.0, 2.0]


def test_dropped_rows_leave_the_baseline_and_the_batch():
    scored = [row(1.0), row(None), row(0.0), row(1.0, tokens=0)]
    samples = estimate_advantages(scored, AlgorithmConfig(advantage="dr_grpo"))
    assert [s.advantages_T[0] for s in samples] == [0.5, -0.5]
    alone = estimate_advantages([row(1.0), row(None)], AlgorithmConfig())
    assert [list(s.advantages_T) for s in alone] == [[0.0, 0.0]]
    assert estimate_advantages([row(None)], AlgorithmConfig()) == []


def test_samples_carry_the_rollouts_tokens():
    (sample, _) = estimate_advantages([row(1.0, tokens=3), row(0.0)], AlgorithmConfig())
    assert (sample.prompt_ids, sample.completion_ids) == ((1, 2), (0, 1, 2))
    assert sample.sampler_logprobs_T == (-1.0, -1.0, -1.0)
    assert list(sample.loss_mask_T) == [1, 1, 1]
    assert sample.group == "g"


def test_returns_and_gae_by_hand():
    assert discounted_returns([1.0, 0.0, 2.0], 0.5) == [1.5, 1.0, 2.0]
    # deltas: 0 + .9*.6 - .5 = .04, 1 - .6 = .4; advantage_0 = .04 + .9*.8*.4
    advantages, returns = gae([0.0, 1.0], [0.5, 0.6], gamma=0.9, lam=0.8)
    assert advantages == pytest.approx([0.328, 0.4])
    assert returns == pytest.approx([0.828, 1.0])


def test_gae_uses_the_critics_values_and_demands_them():
    config = AlgorithmConfig(advantage="gae", critic=CriticConfig(), gamma=0.9, lam=0.8)
    (sample,) = estimate_advantages([row(1.0)], config, [TokenStatistics(values_T=[0.5, 0.6])])
    assert sample.advantages_T == pytest.approx([0.328, 0.4])
    assert sample.returns_T == pytest.approx([0.828, 1.0])
    assert sample.values_T == [0.5, 0.6]
    with pytest.raises(ValueError, match="one value per token: expected 2"):
        estimate_advantages([row(1.0)], config)


def test_reinforce_pp_takes_the_kl_off_and_standardises_over_tokens():
    config = AlgorithmConfig(
        advantage="reinforce_pp", kl=KLConfig(coefficient=0.1, placement="reward", estimator="k1")
    )
    stats = [TokenStatistics(old_logprobs_T=[-1.0, -1.0], ref_logprobs_T=[-2.0, -1.0]), *[TokenStatistics(
        old_logprobs_T=[-1.0, -1.0], ref_logprobs_T=[-1.0, -1.0])]]  # fmt: skip
    returns = [0.9, 1.0, 0.0, 0.0]  # 1 - 0.1 * (1, 0) summed backwards; 0
    mean, std = statistics.fmean(returns), statistics.pstdev(returns)
    samples = estimate_advantages([row(1.0, group="a"), row(0.0, group="b")], config, stats)
    flat = [a for s in samples for a in s.advantages_T]
    assert flat == pytest.approx([(r - mean) / std for r in returns], rel=1e-5)
    with pytest.raises(ValueError, match="token_statistics"):
        estimate_advantages([row(1.0)], config)


def test_reinforce_pp_baseline_centers_groups_then_whitens_the_batch():
    scored = [row(1.0, group="a"), row(0.0, group="a"), row(10.0, group="b"), row(0.0, group="b")]
    centered = [0.5, -0.5, 5.0, -5.0]
    std = statistics.pstdev(centered)
    got = scalars(scored, AlgorithmConfig(advantage="reinforce_pp_baseline"))
    assert got == pytest.approx([c / std for c in centered], rel=1e-5)


def test_whitening_counts_tokens():
    scored = [row(1.0, tokens=3), row(0.0, tokens=1)]
    samples = estimate_advantages(scored, AlgorithmConfig(advantage="dr_grpo", whiten=True))
    flat = [a for s in samples for a in s.advantages_T]
    assert statistics.fmean(flat) == pytest.approx(0.0, abs=1e-9)
    assert statistics.pstdev(flat) == pytest.approx(1.0, rel=1e-5)
    assert flat[0] == pytest.approx(0.25 / math.sqrt(3 / 16), rel=1e-5)


def test_gdpo_gives_each_component_its_say_whatever_its_scale():
    """A component of scale 100 does not drown one of scale 1; the sum is standardised over the batch."""
    components = [{"big": (100.0, 1.0), "small": (0.0, 1.0)}, {"big": (0.0, 1.0), "small": (1.0, 1.0)},
                  {"big": (100.0, 1.0), "small": (1.0, 1.0)}]  # fmt: skip
    scored = [row(sum(v for v, _ in c.values()), components=c) for c in components]
    a = math.sqrt(2) / 2  # of (1, 0, 1): (1 - 2/3) / std and (0 - 2/3) / std
    sums = [a - 2 * a, -2 * a + a, a + a]
    std = statistics.pstdev(sums)
    got = scalars(scored, AlgorithmConfig(advantage="gdpo"))
    assert got == pytest.approx([s / std for s in sums], rel=1e-4)
    assert got[0] == pytest.approx(got[1], rel=1e-4)  # equal up to EPS


def test_process_rewards_are_returns_standardised_in_the_group():
    scored = [row(1.0, token_rewards=(0.5, 0.0)), row(0.0, token_rewards=(0.0, 0.0))]
    returns = [1.5, 1.0, 0.0, 0.0]
    mean, std = statistics.fmean(returns), statistics.pstdev(returns)
    samples = estimate_advantages(scored, AlgorithmConfig(advantage="process"))
    assert [a for s in samples for a in s.advantages_T] == pytest.approx(
        [(r - mean) / std for r in returns], rel=1e-5
    )


def test_overlong_completions_are_masked_or_penalised():
    scored = [row(1.0, tokens=10, truncated=True), row(0.0)]
    mask = AlgorithmConfig(overlong=OverlongConfig(mode="mask"))
    long, short = estimate_advantages(scored, mask)
    assert (sum(long.loss_mask_T), sum(short.loss_mask_T)) == (0, 2)
    shape = OverlongConfig(mode="shape", buffer_tokens=4, penalty=0.5)
    assert [overlong_penalty(n, 10, shape) for n in (6, 7, 8, 10, 12)] == [0.0, -0.125, -0.25, -0.5, -0.5]
    shaped = AlgorithmConfig(advantage="dr_grpo", overlong=shape)
    assert scalars(scored, shaped) == [0.25, -0.25]


def test_informative_groups_are_those_with_variance():
    scored = [row(1.0, group="a"), row(0.0, group="a"), row(1.0, group="b"), row(1.0, group="b"),
              row(1.0, group="c"), row(None, group="c")]  # fmt: skip
    assert informative_groups(scored, AlgorithmConfig()) == {"a"}


def test_a_group_whose_advantages_are_all_masked_is_not_informative():
    """Cut completions leave the loss: an update would have nothing of the group to learn from."""
    masked = [row(0.0, group="cut", truncated=True), row(1.0, group="cut", truncated=True)]
    half = [row(0.0, group="half", truncated=True), row(1.0, group="half")]
    config = AlgorithmConfig(overlong=OverlongConfig(mode="mask"))
    assert informative_groups(masked + half, config) == {"half"}
    assert informative_groups(masked + half, AlgorithmConfig()) == {"cut", "half"}


@pytest.mark.parametrize("estimator", [group_standardize, group_center, leave_one_out])
@pytest.mark.parametrize("rewards", [[0.1 + 0.2, 0.3, 0.3], [0.1 + 0.2 - 0.3, 0.0], [1e6 + 1e-9, 1e6]])
def test_rewards_equal_but_for_rounding_are_no_variance(estimator, rewards):
    assert len(set(rewards)) == 2
    assert estimator(rewards) == [0.0] * len(rewards)


def test_every_count_of_flat_groups_takes_rounding_for_equal():
    scored = [row(reward, components={"a": (reward, 1.0)}) for reward in (0.1 + 0.2, 0.3)]
    assert batch_metrics(scored)["reward/flat_group_fraction"] == 1.0
    for name in ("grpo", "rloo", "dr_grpo", "gdpo", "process"):
        assert informative_groups(scored, AlgorithmConfig(advantage=name)) == set()
    assert group_advantages([0.1 + 0.2, 0.3, None]) == [0.0, 0.0, None]
    whitened = estimate_advantages(scored, AlgorithmConfig(advantage="reinforce_pp"))
    assert not any(any(sample.advantages_T) for sample in whitened)
    apart = [row(reward) for reward in (0.3, 0.3 + 1e-6)]
    assert batch_metrics(apart)["reward/flat_group_fraction"] == 0.0


def test_under_gdpo_a_group_of_equal_sums_is_informative_and_a_flat_one_exactly_zero():
    even = [{"a": (2.0, 1.0), "b": (0.0, 2.0)}, {"a": (0.0, 1.0), "b": (2.0, 2.0)},
            {"a": (2.0, 1.0), "b": (0.0, 2.0)}]  # fmt: skip
    flat = [{"a": (0.1, 1.0), "b": (0.7, 1.0)}] * 3
    scored = [row(2.0, group="even", components=c) for c in even]
    scored += [row(0.8, group="flat", components=c) for c in flat]
    config = AlgorithmConfig(advantage="gdpo")
    assert informative_groups(scored, AlgorithmConfig()) == set()
    assert informative_groups(scored, config) == {"even"}
    got = scalars(scored, config)
    assert got[3:] == [0.0, 0.0, 0.0]
    assert got[0] < 0 < got[1]


def test_gdpo_counts_a_nested_group_once_and_not_through_its_parts_again():
    """Only top-level components are added; "g/a" and "g/b" are inside "g" already."""
    values = [(1.0, 0.0), (0.0, 0.0), (1.0, 1.0)]
    components = [{"g": (a + b, 1.0), "g/a": (a, 1.0), "g/b": (b, 1.0), "c": (1 - a, 1.0)} for a, b in values]
    scored = [row(1.0, components=c) for c in components]
    std_g, std_c = math.sqrt(2 / 3), math.sqrt(2) / 3  # of (1, 0, 2) and (0, 1, 0)
    sums = [0 - 1 / 3 / std_c, -1 / std_g + 2 / 3 / std_c, 1 / std_g - 1 / 3 / std_c]
    got = scalars(scored, AlgorithmConfig(advantage="gdpo"))
    assert got == pytest.approx([s / statistics.pstdev(sums) for s in sums], rel=1e-4)
    assert got == pytest.approx(gdpo_advantages(scored), rel=1e-9)
