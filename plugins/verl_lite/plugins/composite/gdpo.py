"""Advantages that normalise each reward separately before adding them (`combine: gdpo`).

GDPO, "Group reward-Decoupled Normalization Policy Optimization for Multi-reward RL Optimization",
arXiv:2601.05242. Summing first lets one reward's spread drown the others, and gives different
combinations of rewards with the same sum the same advantage. For reward k, prompt i, sample j:

    A_k(i,j) = (r_k(i,j) - mean_i r_k) / (std_i r_k + eps)      within the prompt's group
    A(i,j)   = sum_k w_k A_k(i,j)
    out(i,j) = (A(i,j) - mean A) / (std A + eps)                over the whole batch

Departures: standard deviations are the population's, as everywhere here (TRL uses the sample's);
dropped samples enter no mean and get None; a component without a value for one sample is normalised
over the others and adds 0 to that sample; a closed gate counts as 0, like the paper's conditioned
rewards. A negative weight flips the sign of its normalised reward.
"""

from collections.abc import Mapping, Sequence

from verl_lite.plugins.score import ScoredRollout
from verl_lite.plugins.statistics import EPS, mean_and_std


def gdpo_advantages(
    rows: Sequence[ScoredRollout], *, eps: float = EPS, normalise_batch: bool = True
) -> list[float | None]:
    """One advantage per row, None for dropped rows. Rows of a group need not be adjacent.

    `normalise_batch=False` leaves out the last of the three lines above.
    """
    parts = normalised_contributions(rows, eps=eps)
    sums = [None if part is None else sum(part.values()) for part in parts]
    if not normalise_batch:
        return sums
    kept = [value for value in sums if value is not None]
    mean, std = mean_and_std(kept)
    spread = std + eps or 1.0  # with eps=0, a batch of equal sums gives 0
    # the mean is 0 but for rounding; 0 stays 0, so a group without variance causes no update
    return [(value - mean) / spread if value else value for value in sums]


def normalised_contributions(
    rows: Sequence[ScoredRollout], *, eps: float = EPS
) -> Sequence[Mapping[str, float] | None]:
    """w_k A_k of every top-level component for each row; None for dropped rows."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if row.reward is not None:
            groups.setdefault(row.rollout.group, []).append(index)
    parts: list[dict[str, float] | None] = [None if row.reward is None else {} for row in rows]
    for members in groups.values():
        for name in rows[members[0]].components:
            if "/" in name:
                continue
            known = [(i, rows[i].components[name].contribution) for i in members]
            values = [(i, value) for i, value in known if value is not None]
            mean, std = mean_and_std([value for _, value in values])
            for i, value in values:
                # the contribution is w r: dividing it by |w| std leaves sign(w) A_k
                weight = abs(rows[i].components[name].weight)
                part = parts[i]
                assert part is not None
                spread = std + eps * weight
                part[name] = weight * (value - mean) / spread if std else 0.0
    return parts
