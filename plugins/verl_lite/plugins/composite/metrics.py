"""The metrics of one scoring pass, each named once in METRICS.

Execution counts latencies, retries and replaced workers; the rest is computed here.
"""

from collections.abc import Sequence

from verl_lite.plugins.composite.gdpo import normalised_contributions
from verl_lite.plugins.composite.policies import was_run
from verl_lite.plugins.score import ScoredRollout, ScoreOutcome
from verl_lite.plugins.statistics import Moments, has_zero_variance

METRICS: tuple[tuple[str, str, str], ...] = (
    ("reward/mean", "reward", "mean reward of the rollouts that were kept"),
    ("reward/std", "reward", "their standard deviation (population)"),
    ("reward/min", "reward", "lowest reward"),
    ("reward/max", "reward", "highest reward"),
    ("reward/group_std_mean", "reward", "mean over the groups of the standard deviation within the group"),
    ("reward/flat_group_fraction", "fraction", "groups whose rewards are all equal: nothing to learn from"),
    ("reward/rows", "rollouts", "rollouts scored"),
    ("reward/dropped_rows", "rollouts", "rollouts dropped from the batch and the baselines"),
    ("reward/dropped_fraction", "fraction", "their fraction of the rollouts"),
    ("reward/<name>/mean", "value", "mean value of the reward, before clip, scale, offset and weight"),
    ("reward/<name>/std", "value", "standard deviation of those values"),
    ("reward/<name>/weight", "weight", "its weight at this step"),
    ("reward/<name>/ok_fraction", "fraction", "rollouts with a value"),
    ("reward/<name>/abstain_fraction", "fraction", "rollouts it ran on but gave no value"),
    ("reward/<name>/error_fraction", "fraction", "rollouts it failed on"),
    ("reward/<name>/timeout_fraction", "fraction", "rollouts it did not finish in time"),
    ("reward/<name>/skipped_fraction", "fraction", "rollouts skipped by its gate or routing"),
    (
        "reward/<name>/advantage_share",
        "fraction",
        "its share of the variance within the groups; shares add up to 1",
    ),
    ("reward/<name>/latency_p50_s", "seconds", "median time per rollout it ran on"),
    ("reward/<name>/latency_p95_s", "seconds", "95th percentile"),
    ("reward/<name>/latency_p99_s", "seconds", "99th percentile"),
    ("reward/<name>/errors", "rollouts", "rollouts it failed on"),
    ("reward/<name>/timeouts", "rollouts", "rollouts it did not finish in time"),
    ("reward/<name>/retries", "calls", "retries after failures the reward declares retryable"),
    ("reward/workers_replaced", "processes", "worker processes replaced after they died or were killed"),
)


def batch_metrics(rows: Sequence[ScoredRollout], *, combine: str = "sum") -> dict[str, float]:
    """The metrics in METRICS about values and outcomes; a mean over nothing is left out."""
    metrics = {"reward/rows": float(len(rows))}
    if not rows:
        return metrics
    kept = [row.reward for row in rows if row.reward is not None]
    num_dropped = len(rows) - len(kept)
    metrics |= {"reward/dropped_rows": float(num_dropped), "reward/dropped_fraction": num_dropped / len(rows)}
    if kept:
        found = Moments.of(kept)
        metrics |= {"reward/mean": found.mean, "reward/std": found.std}
        metrics |= {"reward/min": found.low, "reward/max": found.high}
        metrics |= _group_metrics(rows)
    for name in rows[0].components:
        metrics |= _component_metrics(name, rows)
    if combine != "product":
        metrics |= _advantage_shares(rows, combine)
    return metrics


def _group_metrics(rows: Sequence[ScoredRollout]) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row.reward is not None:
            groups.setdefault(row.rollout.group, []).append(row.reward)
    several = [rewards for rewards in groups.values() if len(rewards) > 1]
    if not several:
        return {}
    flat = sum(1 for rewards in several if has_zero_variance(rewards))
    return {
        "reward/group_std_mean": sum(Moments.of(rewards).std for rewards in several) / len(several),
        "reward/flat_group_fraction": flat / len(several),
    }


def _component_metrics(name: str, rows: Sequence[ScoredRollout]) -> dict[str, float]:
    parts = [row.components[name] for row in rows]
    values = [part.score.value for part in parts if part.score.value is not None]
    others = [part.score for part in parts if part.score.value is None]
    num_skipped = sum(1 for score in others if not was_run(score))
    counts = {outcome: sum(1 for score in others if score.outcome is outcome) for outcome in ScoreOutcome}
    counts[ScoreOutcome.OK] = len(values)
    counts[ScoreOutcome.ABSTAIN] -= num_skipped
    metrics = {f"reward/{name}/{outcome}_fraction": count / len(rows) for outcome, count in counts.items()}
    metrics[f"reward/{name}/skipped_fraction"] = num_skipped / len(rows)
    metrics[f"reward/{name}/weight"] = parts[0].weight
    if values:
        found = Moments.of(values)
        metrics[f"reward/{name}/mean"], metrics[f"reward/{name}/std"] = found.mean, found.std
    return metrics


def _advantage_shares(rows: Sequence[ScoredRollout], combine: str) -> dict[str, float]:
    """cov(c_k, R) / var(R) within the groups, summed over them, R being the sum of the contributions.

    Under gdpo the c_k are the normalised contributions, which make up the advantage.
    """
    names = [name for name in rows[0].components if "/" not in name]
    parts = normalised_contributions(rows) if combine == "gdpo" else None
    groups: dict[str, list[list[float]]] = {}
    for index, row in enumerate(rows):
        if row.reward is None:
            continue
        if parts is None:
            values = [row.components[name].contribution or 0.0 for name in names]
        else:
            part = parts[index] or {}
            values = [part.get(name, 0.0) for name in names]
        groups.setdefault(row.rollout.group, []).append(values)
    covariances = [0.0] * len(names)
    for members in groups.values():
        sums = [sum(values) for values in members]
        mean = sum(sums) / len(sums)
        for values, total in zip(members, sums, strict=True):
            for k, value in enumerate(values):
                covariances[k] += value * (total - mean)
    variance = sum(covariances)
    if variance <= 1e-12:
        return {}
    return {
        f"reward/{name}/advantage_share": cov / variance for name, cov in zip(names, covariances, strict=True)
    }
