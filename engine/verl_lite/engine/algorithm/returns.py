"""What the estimators compare: rewards per token, their returns and GAE; and which samples are imitated.

Departures from the papers:
- GAE (arXiv:1506.02438): the value after the last token is 0, also for truncated completions.
- Process rewards: each token's return is the sum of its own and later step rewards, plus the outcome
  reward at the end; returns are standardised over the group's tokens.
- RAFT (arXiv:2304.06767, as in arXiv:2504.11343) and RFT (arXiv:2308.01825): no advantage: samples that
  are right are in the component `cross_entropy`, under RFT
  each completion only once. RAFT's first paper takes the best sample of a group, right or not.

Shapes: G samples of one group, T completion tokens, S of them sampled, K turns.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch

from verl_lite.engine.algorithm.kl import kl_estimate
from verl_lite.engine.algorithm.trajectories import sampled, sampled_rewards, spread, turn_lengths
from verl_lite.engine.config.algorithm import AlgorithmConfig, KLConfig, OverlongConfig
from verl_lite.engine.types import TokenStatistics, TrainingSample
from verl_lite.plugins import ScoredRollout
from verl_lite.plugins.statistics import group_standardize


def discounted_returns(rewards_T: Sequence[float], gamma: float) -> list[float]:
    """Each token's discounted sum of its own and later rewards.

    >>> discounted_returns([0.0, 0.0, 1.0], 0.5)
    [0.25, 0.5, 1.0]
    """
    backwards = accumulate(reversed(rewards_T), lambda later, reward: reward + gamma * later)
    return list(backwards)[::-1]


def gae(
    rewards_T: Sequence[float], values_T: Sequence[float], *, gamma: float, lam: float
) -> tuple[list[float], list[float]]:
    """Generalised advantage estimates and the critic's targets (advantage + value), each of length T.

    >>> gae([0.0, 1.0], [0.5, 0.5], gamma=1.0, lam=1.0)
    ([0.5, 0.5], [1.0, 1.0])
    """
    next_values_T = [*values_T[1:], 0.0]
    deltas_T = [
        reward + gamma * after - value
        for reward, value, after in zip(rewards_T, values_T, next_values_T, strict=True)
    ]
    advantages_T = discounted_returns(deltas_T, gamma * lam)
    return advantages_T, [a + v for a, v in zip(advantages_T, values_T, strict=True)]


def turn_gae(
    rewards_S: Sequence[float],
    values_S: Sequence[float],
    turn_lengths_K: Sequence[int],
    *,
    gamma: float,
    lam: float,
) -> tuple[list[float], list[float]]:
    """`gae` with turns as actions: see trajectories.py. Advantages and targets per sampled token.

    >>> turn_gae([0.0, 1.0, 2.0], [0.5, 0.9, 1.0], [2, 1], gamma=0.5, lam=1.0)
    ([1.5, 1.5, 1.0], [2.0, 2.0, 2.0])
    """
    starts_K = [0, *accumulate(turn_lengths_K)][:-1]
    rewards_K = [sum(rewards_S[a : a + n]) for a, n in zip(starts_K, turn_lengths_K, strict=True)]
    advantages_K, targets_K = gae(rewards_K, [values_S[a] for a in starts_K], gamma=gamma, lam=lam)

    def per_token(values_K: Sequence[float]) -> list[float]:
        return [value for value, n in zip(values_K, turn_lengths_K, strict=True) for _ in range(n)]

    return per_token(advantages_K), per_token(targets_K)


def overlong_penalty(num_tokens: int, max_tokens: int, config: OverlongConfig) -> float:
    """DAPO's soft punishment (arXiv:2503.14476, eq. 13): 0 before the buffer, `-penalty` at the limit.

    >>> overlong_penalty(90, 100, OverlongConfig(mode="shape", buffer_tokens=20, penalty=1.0))
    -0.5
    """
    into_buffer = num_tokens - (max_tokens - config.buffer_tokens)
    return -config.penalty * min(max(into_buffer / config.buffer_tokens, 0.0), 1.0)


def shaped_reward(row: ScoredRollout, config: OverlongConfig) -> float:
    """The row's reward, with the punishment of an overlong completion if `config` shapes it."""
    assert row.reward is not None
    limit = row.rollout.sampling.max_new_tokens
    if config.mode != "shape" or limit == 0:
        return row.reward
    return row.reward + overlong_penalty(sum(row.rollout.sampled_mask), limit, config)


def token_rewards(
    row: ScoredRollout, stats: TokenStatistics, config: AlgorithmConfig, kl_coefficient: float | None
) -> list[float]:
    """Process rewards of the sampled tokens, the outcome at the last one, minus each one's KL penalty."""
    length, mask_T = len(row.rollout.completion_ids), row.rollout.sampled_mask
    rewards_S = sampled_rewards(list(row.token_rewards) or [0.0] * length, mask_T)
    rewards_S[-1] += shaped_reward(row, config.overlong)
    coefficient = config.kl.coefficient if kl_coefficient is None else kl_coefficient
    if config.kl.in_reward and coefficient > 0:
        penalties_S = sampled(_kl_penalties(stats, config.kl, length), mask_T)
        rewards_S = [r - coefficient * kl for r, kl in zip(rewards_S, penalties_S, strict=True)]
    return rewards_S


def _kl_penalties(stats: TokenStatistics, config: KLConfig, length: int) -> list[float]:
    if len(stats.ref_logprobs_T) != length or len(stats.old_logprobs_T) != length:
        raise ValueError(
            "kl.placement=reward needs the policy's and the reference's log-probabilities of every token: "
            "pass the result of Learner.token_statistics"
        )
    old_T, ref_T = (
        torch.tensor(one, dtype=torch.float64) for one in (stats.old_logprobs_T, stats.ref_logprobs_T)
    )
    penalties_T: list[float] = kl_estimate(old_T, ref_T, config.estimator).tolist()
    return penalties_T


def gae_of(
    row: ScoredRollout, stats: TokenStatistics, config: AlgorithmConfig, kl_coefficient: float | None
) -> tuple[list[float], list[float]]:
    """GAE's advantages_T and targets_T of a row; raises ValueError without a value per token."""
    if len(stats.values_T) != len(row.rollout.completion_ids):
        raise ValueError(
            f"advantage=gae needs one value per token: expected {len(row.rollout.completion_ids)} for "
            f"rollout {row.rollout.id!r}, got {len(stats.values_T)}; pass the result of "
            "Learner.token_statistics"
        )
    mask_T = row.rollout.sampled_mask
    rewards_S = token_rewards(row, stats, config, kl_coefficient)
    values_S = sampled(stats.values_T, mask_T)
    if config.gae_over == "turns":
        found = turn_gae(rewards_S, values_S, turn_lengths(mask_T), gamma=config.gamma, lam=config.lam)
    else:
        found = gae(rewards_S, values_S, gamma=config.gamma, lam=config.lam)
    return spread(found[0], mask_T), spread(found[1], mask_T)


def process_advantages(group: Sequence[ScoredRollout], config: AlgorithmConfig) -> list[list[float]]:
    """Per sample, each token's return, standardised over the group's tokens."""
    returns = [
        discounted_returns(token_rewards(row, TokenStatistics(), config, 0.0), config.gamma) for row in group
    ]
    flat = iter(group_standardize([value for values_S in returns for value in values_S]))
    return [
        spread([next(flat) for _ in values_S], row.rollout.sampled_mask)
        for values_S, row in zip(returns, group, strict=True)
    ]


def imitate_right(
    rows: Sequence[ScoredRollout], made: Sequence[Sequence[TrainingSample]], config: AlgorithmConfig
) -> list[list[TrainingSample]]:
    """Each row's samples; of equal completions of a prompt `rft` imitates only the first."""
    seen: set[tuple[str, tuple[int, ...]]] = set()
    found: list[list[TrainingSample]] = []
    for row, samples in zip(rows, made, strict=True):
        key = (row.rollout.group, tuple(row.rollout.completion_ids))
        is_right = shaped_reward(row, config.overlong) >= config.right_at
        if is_right and (config.advantage == "raft" or key not in seen):
            seen.add(key)
            samples = [replace(one, components={"cross_entropy": one.loss_mask_T}) for one in samples]
        found.append(list(samples))
    return found
