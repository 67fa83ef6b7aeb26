"""Advantage estimators: scored rollouts in, one advantage per completion token out.

Rows with reward None were dropped: they enter no baseline, count or loss.

Departures from the papers:
- GRPO (arXiv:2402.03300, sec. 4.1.2): population standard deviation plus `EPS`; a group whose
  rewards are all equal gives exactly 0, and the learner skips it.
- Dr.GRPO (arXiv:2503.20783): only the mean is subtracted. Its loss side is aggregate=sequence_sum_norm.
- RLOO (arXiv:2402.14740): each sample's baseline is the mean of the *other* samples of its group.
- MaxRL (arXiv:2602.02710): reward minus the group's mean, divided by that mean; rewards may be graded, not
  negative. The paper's are 0 or 1.
- RAFT (arXiv:2304.06767, as in arXiv:2504.11343) and RFT (arXiv:2308.01825): no advantage; samples that are
  right are in the component `cross_entropy`, RFT's only once each. RAFT's first paper takes the best sample
  of a group, right or not.
- REINFORCE++ (arXiv:2501.03262): the reward comes at the last token, a KL penalty (if configured) at
  every token; returns are discounted by gamma and standardised over the batch's tokens.
  With baseline: the group's mean is subtracted first, then the whole batch is standardised.
- GDPO (arXiv:2601.05242): `verl_lite.plugins.gdpo_advantages`, which lists its own departures.
- Process rewards: each token's return is the sum of its own and later step rewards, plus the outcome
  reward at the end; returns are standardised over the group's tokens.
- GAE (arXiv:1506.02438): the value after the last token is 0, also for truncated completions.

Shapes: G samples of one group, T completion tokens, B samples of the batch.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from statistics import fmean

import torch

from verl_lite.engine.algorithm.kl import kl_estimate
from verl_lite.engine.algorithm.trajectories import (
    sample_parts,
    sampled,
    sampled_rewards,
    spread,
    turn_lengths,
)
from verl_lite.engine.config.algorithm import (
    OWN_SAMPLES,
    AdvantageName,
    AlgorithmConfig,
    KLConfig,
    OverlongConfig,
)
from verl_lite.engine.types import TokenStatistics, TrainingSample, is_trainable
from verl_lite.plugins import ScoredRollout, gdpo_advantages
from verl_lite.plugins.statistics import (
    EPS,
    group_center as group_center,
    group_standardize as group_standardize,
    has_zero_variance,
    mean_and_std,
)


def leave_one_out(rewards_G: Sequence[float]) -> list[float]:
    """reward - mean of the others; 0 for a group of one, which has no others.

    >>> leave_one_out([1.0, 0.0, 0.0])
    [1.0, -0.5, -0.5]
    """
    others = len(rewards_G) - 1
    if has_zero_variance(rewards_G) or others == 0:
        return [0.0] * len(rewards_G)
    total = sum(rewards_G)
    return [reward - (total - reward) / others for reward in rewards_G]


def mean_normalised(rewards_G: Sequence[float]) -> list[float]:
    """MaxRL's (reward - mean) / mean (arXiv:2602.02710, eq. 10). Raises ValueError for negative rewards.

    >>> mean_normalised([1.0, 0.0, 0.0, 0.0]), mean_normalised([0.0, 0.0])
    ([3.0, -1.0, -1.0, -1.0], [0.0, 0.0])
    """
    if has_zero_variance(rewards_G):
        return [0.0] * len(rewards_G)
    if min(rewards_G) < 0:
        raise ValueError(
            f"advantage=maxrl divides by the mean reward of a group, but one reward is {min(rewards_G)}: "
            "rewards must not be negative; shift them, or use advantage: grpo"
        )
    mean = fmean(rewards_G)
    return [(reward - mean) / mean for reward in rewards_G]


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


def estimate_advantages(
    scored: Sequence[ScoredRollout],
    config: AlgorithmConfig,
    token_statistics: Sequence[TokenStatistics] | None = None,
    *,
    kl_coefficient: float | None = None,
) -> list[TrainingSample]:
    """One training sample per trainable row, in order; several of a row in segments (see trajectories.py).

    `token_statistics` has one entry per row, from PolicyLearner.token_statistics: gae needs the values, a KL
    in the reward needs both models' log-probabilities. `kl_coefficient` defaults to the config's; pass the
    controller's current one. Raises ValueError when the estimator lacks statistics.
    """
    all_stats = token_statistics if token_statistics is not None else [TokenStatistics()] * len(scored)
    rows = [(row, stats) for row, stats in zip(scored, all_stats, strict=True) if is_trainable(row)]
    masks = [_loss_mask(row, config.overlong) for row, _ in rows]
    returns: list[list[float]] = [[] for _ in rows]
    if config.advantage == "gae":
        pairs = [_gae_of(row, stats, config, kl_coefficient) for row, stats in rows]
        advantages = [advantage for advantage, _ in pairs]
        returns = [target for _, target in pairs]
    elif config.advantage == "reinforce_pp":
        penalised = [_token_rewards(row, stats, config, kl_coefficient) for row, stats in rows]
        advantages = [
            spread(discounted_returns(rewards_S, config.gamma), row.rollout.sampled_mask)
            for rewards_S, (row, _) in zip(penalised, rows, strict=True)
        ]
    else:
        advantages = _group_advantages([row for row, _ in rows], config)
    if config.whiten or config.advantage in ("reinforce_pp", "reinforce_pp_baseline"):
        advantages = _whiten(advantages, masks)
    parts = zip(rows, advantages, masks, returns, strict=True)
    made = [_samples(row, stats, a_T, m_T, r_T) for (row, stats), a_T, m_T, r_T in parts]
    if config.advantage not in OWN_SAMPLES:
        return [sample for samples in made for sample in samples]
    imitated = _imitated([row for row, _ in rows], config)
    return [
        replace(sample, components={"cross_entropy": sample.loss_mask_T}) if chosen else sample
        for samples, chosen in zip(made, imitated, strict=True)
        for sample in samples
    ]


def _imitated(rows: Sequence[ScoredRollout], config: AlgorithmConfig) -> list[bool]:
    """Which rows are right; of equal completions of a prompt only the first under `rft`."""
    seen: set[tuple[str, tuple[int, ...]]] = set()
    chosen: list[bool] = []
    for row in rows:
        key = (row.rollout.group, tuple(row.rollout.completion_ids))
        is_new = config.advantage == "raft" or key not in seen
        chosen.append(_shaped_reward(row, config.overlong) >= config.right_at and is_new)
        if chosen[-1]:
            seen.add(key)
    return chosen


def _group_advantages(rows: Sequence[ScoredRollout], config: AlgorithmConfig) -> list[list[float]]:
    if config.advantage == "gdpo":
        scalars = gdpo_advantages(rows, eps=EPS)
        return [
            [value or 0.0] * len(row.rollout.completion_ids) for value, row in zip(scalars, rows, strict=True)
        ]
    groups: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[row.rollout.group].append(index)
    advantages: list[list[float]] = [[] for _ in rows]
    for members in groups.values():
        group = [rows[index] for index in members]
        for index, values_T in zip(members, _one_group(group, config), strict=True):
            advantages[index] = values_T
    return advantages


def _no_advantages(rewards_G: Sequence[float]) -> list[float]:
    return [0.0] * len(rewards_G)


ESTIMATORS: Mapping[AdvantageName, Callable[[Sequence[float]], list[float]]] = {
    "grpo": group_standardize,
    "dr_grpo": group_center,
    "reinforce_pp_baseline": group_center,
    "rloo": leave_one_out,
    "maxrl": mean_normalised,
    "raft": _no_advantages,
    "rft": _no_advantages,
    "none": _no_advantages,
}


def _one_group(group: Sequence[ScoredRollout], config: AlgorithmConfig) -> list[list[float]]:
    if config.advantage == "process":
        return _process_advantages(group, config)
    scalars_G = ESTIMATORS[config.advantage]([_shaped_reward(row, config.overlong) for row in group])
    return [[value] * len(row.rollout.completion_ids) for value, row in zip(scalars_G, group, strict=True)]


def _process_advantages(group: Sequence[ScoredRollout], config: AlgorithmConfig) -> list[list[float]]:
    returns = [
        discounted_returns(_token_rewards(row, TokenStatistics(), config, 0.0), config.gamma) for row in group
    ]
    flat = iter(group_standardize([value for values_S in returns for value in values_S]))
    return [
        spread([next(flat) for _ in values_S], row.rollout.sampled_mask)
        for values_S, row in zip(returns, group, strict=True)
    ]


def _gae_of(
    row: ScoredRollout, stats: TokenStatistics, config: AlgorithmConfig, kl_coefficient: float | None
) -> tuple[list[float], list[float]]:
    if len(stats.values_T) != len(row.rollout.completion_ids):
        raise ValueError(
            f"advantage=gae needs one value per token: expected {len(row.rollout.completion_ids)} for "
            f"rollout {row.rollout.id!r}, got {len(stats.values_T)}; pass the result of "
            "Learner.token_statistics"
        )
    mask_T = row.rollout.sampled_mask
    rewards_S = _token_rewards(row, stats, config, kl_coefficient)
    values_S = sampled(stats.values_T, mask_T)
    if config.gae_over == "turns":
        found = turn_gae(rewards_S, values_S, turn_lengths(mask_T), gamma=config.gamma, lam=config.lam)
    else:
        found = gae(rewards_S, values_S, gamma=config.gamma, lam=config.lam)
    return spread(found[0], mask_T), spread(found[1], mask_T)


def _token_rewards(
    row: ScoredRollout, stats: TokenStatistics, config: AlgorithmConfig, kl_coefficient: float | None
) -> list[float]:
    """Process rewards of the sampled tokens, the outcome at the last one, minus each one's KL penalty."""
    length, mask_T = len(row.rollout.completion_ids), row.rollout.sampled_mask
    rewards_S = sampled_rewards(list(row.token_rewards) or [0.0] * length, mask_T)
    rewards_S[-1] += _shaped_reward(row, config.overlong)
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
    policy_T, reference_T = (
        torch.tensor(of, dtype=torch.float64) for of in (stats.old_logprobs_T, stats.ref_logprobs_T)
    )
    penalties_T: list[float] = kl_estimate(policy_T, reference_T, config.estimator).tolist()
    return penalties_T


def _shaped_reward(row: ScoredRollout, config: OverlongConfig) -> float:
    assert row.reward is not None
    limit = row.rollout.sampling.max_new_tokens
    if config.mode != "shape" or limit == 0:
        return row.reward
    return row.reward + overlong_penalty(sum(row.rollout.sampled_mask), limit, config)


def _loss_mask(row: ScoredRollout, config: OverlongConfig) -> list[int]:
    if config.mode == "mask" and row.rollout.is_truncated:
        return [0] * len(row.rollout.completion_ids)
    return row.rollout.sampled_mask


def _whiten(advantages: list[list[float]], masks: Sequence[Sequence[int]]) -> list[list[float]]:
    """Standardise over the batch's tokens that count in the loss."""
    counted = [
        a for a_T, m_T in zip(advantages, masks, strict=True) for a, m in zip(a_T, m_T, strict=True) if m
    ]
    mean, std = mean_and_std(counted)
    return [[(a - mean) / (std + EPS) if std else 0.0 for a in a_T] for a_T in advantages]


def _samples(
    row: ScoredRollout,
    stats: TokenStatistics,
    advantages_T: list[float],
    mask_T: list[int],
    returns_T: list[float],
) -> list[TrainingSample]:
    rollout = row.rollout
    return [
        TrainingSample(
            prompt_ids=part.prompt_ids,
            completion_ids=rollout.completion_ids[part.start : part.end],
            sampler_logprobs_T=rollout.logprobs[part.start : part.end],
            advantages_T=advantages_T[part.start : part.end],
            loss_mask_T=mask_T[part.start : part.end],
            group=rollout.group,
            part=index,
            returns_T=returns_T[part.start : part.end],
            values_T=stats.values_T[part.start : part.end],
            ref_logprobs_T=stats.ref_logprobs_T[part.start : part.end],
            old_logprobs_T=stats.old_logprobs_T[part.start : part.end],
        )
        for index, part in enumerate(sample_parts(rollout))
    ]


def informative_groups(scored: Sequence[ScoredRollout], config: AlgorithmConfig) -> set[str]:
    """Groups with a gradient: at least one sample has a nonzero advantage and counts in the loss."""
    rows = [row for row in scored if is_trainable(row)]
    advantages = _group_advantages(rows, config)
    return {
        row.rollout.group
        for row, values_T in zip(rows, advantages, strict=True)
        if any(values_T) and any(_loss_mask(row, config.overlong))
    }
