"""Advantage estimators: scored rollouts in, one advantage per completion token out.

Rows with reward None were dropped: they enter no baseline, count or loss.

Departures from the papers:
- GRPO (arXiv:2402.03300, sec. 4.1.2): population standard deviation plus `EPS`; a group whose
  rewards are all equal gives exactly 0, and the learner skips it.
- Dr.GRPO (arXiv:2503.20783): only the mean is subtracted. Its loss side is aggregate=sequence_sum_norm.
- RLOO (arXiv:2402.14740): each sample's baseline is the mean of the *other* samples of its group.
- MaxRL (arXiv:2602.02710): reward minus the group's mean, divided by that mean; rewards may be graded, not
  negative. The paper's are 0 or 1.
- REINFORCE++ (arXiv:2501.03262): the reward comes at the last token, a KL penalty (if configured) at
  every token; returns are discounted by gamma and standardised over the batch's tokens.
  With baseline: the group's mean is subtracted first, then the whole batch is standardised.
- GDPO (arXiv:2601.05242): `verl_lite.plugins.gdpo_advantages`, which lists its own departures.
- Process rewards, GAE, and RAFT and RFT, which have no advantage: see returns.py.

Shapes: G samples of one group, T completion tokens, B samples of the batch.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from verl_lite.engine.algorithm.returns import (
    discounted_returns,
    gae_of,
    imitate_right,
    process_advantages,
    shaped_reward,
    token_rewards,
)
from verl_lite.engine.algorithm.trajectories import sample_parts, spread
from verl_lite.engine.config.algorithm import (
    OWN_SAMPLES,
    AdvantageName,
    AlgorithmConfig,
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
        pairs = [gae_of(row, stats, config, kl_coefficient) for row, stats in rows]
        advantages = [advantage for advantage, _ in pairs]
        returns = [target for _, target in pairs]
    elif config.advantage == "reinforce_pp":
        penalised = [token_rewards(row, stats, config, kl_coefficient) for row, stats in rows]
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
    if config.advantage in OWN_SAMPLES:
        made = imitate_right([row for row, _ in rows], made, config)
    return [sample for samples in made for sample in samples]


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
        return process_advantages(group, config)
    scalars_G = ESTIMATORS[config.advantage]([shaped_reward(row, config.overlong) for row in group])
    return [[value] * len(row.rollout.completion_ids) for value, row in zip(scalars_G, group, strict=True)]


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
