"""The metrics of a pass: hand-computed, and exactly those of the documented table."""

import re
from pathlib import Path

import pytest

from verl_lite.plugins import (
    ComponentScore,
    RewardsConfig,
    Rollout,
    Score,
    ScoredRollout,
    ScoreOutcome,
    Scorer,
)
from verl_lite.plugins.composite import METRICS, batch_metrics

DOCS = Path(__file__).parents[3] / "docs" / "rewards.md"


def part(value: float | None, weight: float = 1.0, outcome: str = "abstain") -> ComponentScore:
    score = Score(value) if value is not None else Score.failed(ScoreOutcome(outcome), "why")
    contribution = None if value is None else weight * value
    return ComponentScore(score=score, weight=weight, contribution=contribution)


def row(group: str, reward: float | None, id: str = "", **parts: ComponentScore) -> ScoredRollout:
    return ScoredRollout(rollout=Rollout(completion="", group=group, id=id), components=parts, reward=reward)


def test_totals() -> None:
    rows = [row("x", 0.0), row("x", 2.0), row("y", 4.0), row("y", 4.0), row("y", None), row("z", 5.0)]
    metrics = batch_metrics(rows)
    assert metrics == {
        "reward/rows": 6,
        "reward/dropped_rows": 1,
        "reward/dropped_fraction": pytest.approx(1 / 6),
        "reward/mean": 3.0,
        "reward/std": pytest.approx((16 / 5) ** 0.5),
        "reward/min": 0.0,
        "reward/max": 5.0,
        "reward/group_std_mean": 0.5,  # x: 1, y: 0; z has one sample
        "reward/flat_group_fraction": 0.5,
    }


def test_one_component() -> None:
    skipped = ComponentScore(
        score=Score.failed(ScoreOutcome.ABSTAIN, "not run", not_run="closed"), weight=0.5, contribution=0.0
    )
    parts = [
        part(1.0, 0.5),
        part(3.0, 0.5),
        part(None, 0.5, outcome="timeout"),
        part(None, 0.5, outcome="error"),
        part(None, 0.5),
        skipped,
        skipped,
        skipped,
    ]
    metrics = batch_metrics([row("x", None, m=item) for item in parts])
    assert {key.removeprefix("reward/m/"): value for key, value in metrics.items() if "/m/" in key} == {
        "mean": 2.0,
        "std": 1.0,
        "weight": 0.5,
        "ok_fraction": 0.25,
        "timeout_fraction": 0.125,
        "error_fraction": 0.125,
        "abstain_fraction": 0.125,
        "skipped_fraction": 0.375,
    }


def test_shares_of_the_variance_within_groups() -> None:
    # within x: a is -1, +1 and b is +0.5, -0.5 around their means, so R is -0.5, +0.5:
    # cov(a, R) = 1, cov(b, R) = -0.5, var(R) = 0.5, all summed over the two rows.
    rows = [
        row("x", 3.0, a=part(0.0), b=part(3.0)),
        row("x", 4.0, a=part(2.0), b=part(2.0)),
        row("y", 9.0, a=part(5.0), b=part(4.0)),  # alone in its group: no variance
        row("x", None, a=part(100.0), b=part(None)),  # dropped: not in it
    ]
    metrics = batch_metrics(rows)
    assert metrics["reward/a/advantage_share"] == pytest.approx(2.0)
    assert metrics["reward/b/advantage_share"] == pytest.approx(-1.0)


def test_under_gdpo_the_shares_are_those_of_the_normalised_rewards() -> None:
    rows = [row("x", 0.0, a=part(0.0), b=part(0.0)), row("x", 103.0, a=part(100.0), b=part(3.0))]
    metrics = batch_metrics(rows, combine="gdpo")
    assert metrics["reward/a/advantage_share"] == pytest.approx(0.5, abs=1e-5)
    assert metrics["reward/b/advantage_share"] == pytest.approx(0.5, abs=1e-5)


def test_no_share_where_there_is_no_variance_or_no_sum() -> None:
    flat = [row("x", 1.0, a=part(1.0)), row("x", 1.0, a=part(1.0))]
    steep = [row("x", 1.0, a=part(1.0)), row("x", 2.0, a=part(2.0))]
    assert "reward/a/advantage_share" not in batch_metrics(flat)
    assert "reward/a/advantage_share" not in batch_metrics(steep, combine="product")


def test_what_is_emitted_is_what_is_documented() -> None:
    rewards = {"a": {"use": "exact"}, "b": {"use": "length", "options": {"unit": "words"}}}
    rollouts = [Rollout(completion=text, reference="4", group="g") for text in ("4", "5")]
    with Scorer(RewardsConfig.model_validate({"rewards": rewards})) as scorer:
        metrics = scorer.score(rollouts).metrics
    emitted = {re.sub(r"^reward/[ab]/", "reward/<name>/", name) for name in metrics}
    assert emitted == {name for name, _, _ in METRICS}
    table = DOCS.read_text()
    for name, unit, meaning in METRICS:
        assert f"| `{name}` | {unit} | {meaning} |" in table
