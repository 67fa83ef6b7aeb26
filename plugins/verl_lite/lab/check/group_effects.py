"""What the reward does within groups, as GRPO sees it: variance, shares, reversed orders, GDPO what-if."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from verl_lite.lab.check.findings import Finding, Level
from verl_lite.plugins import ScoredRollout, gdpo_advantages
from verl_lite.plugins.statistics import Moments, group_standardize

_ZERO_VARIANCE_SHARE = 0.5  # above this share most of the compute teaches nothing
_OVERTURN_SHARE = 0.01


@dataclass(slots=True)
class GroupTally:
    """Sums over the groups of a file. `primary` is the component that says what is really correct."""

    primary: str
    num_groups: int = 0
    num_flat: int = 0
    primary_pairs: int = 0  # pairs of samples that the primary component orders
    overturned_pairs: int = 0  # of those, pairs the combined reward orders the other way
    tied_pairs: int = 0  # of those, pairs the combined reward does not tell apart
    covariances: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    variance: float = 0.0
    weights: dict[str, float] = field(default_factory=dict)
    gdpo_sign_changes: int = 0
    gdpo_flat: int = 0
    num_samples: int = 0

    def add(self, group: Sequence[ScoredRollout]) -> None:
        kept = [row for row in group if row.reward is not None]
        if len(kept) < 2:
            return
        self.num_groups += 1
        self.num_samples += len(kept)
        rewards = [row.reward for row in kept if row.reward is not None]
        advantages = group_standardize(rewards)
        self.num_flat += not any(advantages) and not _has_steps(kept)
        self._add_shares(kept, rewards)
        self._add_pairs(kept, rewards)
        self._add_gdpo(kept, advantages)

    def _add_shares(self, kept: Sequence[ScoredRollout], rewards: Sequence[float]) -> None:
        found = Moments.of(rewards)
        self.variance += found.squares
        for name, contributions in _contributions(kept).items():
            self.covariances[name] += sum(
                c * (reward - found.mean) for c, reward in zip(contributions, rewards, strict=True)
            )
        for row in kept:
            self.weights.update({name: abs(part.weight) for name, part in row.components.items()})

    def _add_pairs(self, kept: Sequence[ScoredRollout], rewards: Sequence[float]) -> None:
        values = [part.score.value if (part := r.components.get(self.primary)) else None for r in kept]
        for i, (value, reward) in enumerate(zip(values, rewards, strict=True)):
            for other, other_reward in zip(values[:i], rewards[:i], strict=True):
                if value is None or other is None or value == other:
                    continue
                self.primary_pairs += 1
                agreement = (value - other) * (reward - other_reward)
                self.overturned_pairs += agreement < 0
                self.tied_pairs += agreement == 0

    def _add_gdpo(self, kept: Sequence[ScoredRollout], advantages: Sequence[float | None]) -> None:
        what_if = gdpo_advantages(kept, normalise_batch=False)
        self.gdpo_flat += not any(what_if)
        self.gdpo_sign_changes += sum(
            now is not None and then is not None and now * then < 0
            for now, then in zip(advantages, what_if, strict=True)
        )

    def variance_shares(self) -> dict[str, float]:
        """Each component's share of the reward's within-group variance; under `sum` the shares sum to 1."""
        if self.variance == 0.0:
            return {}
        return {name: value / self.variance for name, value in self.covariances.items()}


def _has_steps(kept: Sequence[ScoredRollout]) -> bool:
    """Whether process rewards tell the tokens apart where the rewards do not."""
    parts = (part for row in kept for part in row.components.values() if part.weight)
    return any(step.value for part in parts for step in part.score.steps)


def _contributions(kept: Sequence[ScoredRollout]) -> dict[str, list[float]]:
    names = {name for row in kept for name in row.components}
    return {
        name: [(part.contribution or 0.0) if (part := row.components.get(name)) else 0.0 for row in kept]
        for name in sorted(names)
    }


def group_findings(tally: GroupTally) -> Iterator[Finding]:
    if not tally.num_groups:
        yield Finding(
            "group variance",
            Level.NOTE,
            "no group has two scored samples: give rows of one prompt the same `group` to check "
            "what GRPO would see",
        )
        return
    flat = tally.num_flat / tally.num_groups
    yield Finding(
        "group variance",
        Level.WARN if flat > _ZERO_VARIANCE_SHARE else Level.OK,
        f"{tally.num_flat:,} of {tally.num_groups:,} groups ({flat:.1%}) have no variance and teach "
        "GRPO nothing",
        {"num_flat": tally.num_flat, "num_groups": tally.num_groups, "share": flat},
    )
    yield _share_finding(tally)
    if tally.primary_pairs:
        yield _overturn_finding(tally)
    if len(tally.weights) > 1:
        yield _gdpo_finding(tally)


def _share_finding(tally: GroupTally) -> Finding:
    shares = tally.variance_shares()
    total = sum(tally.weights.values()) or 1.0
    configured = {name: weight / total for name, weight in tally.weights.items()}
    text = ", ".join(
        f"{name} {share:.0%} (weight {configured.get(name, 0.0):.0%})" for name, share in shares.items()
    )
    dominated = [
        name
        for name, share in shares.items()
        if name != tally.primary and share > shares.get(tally.primary, 0.0)
    ]
    return Finding(
        "variance shares",
        Level.WARN if dominated else Level.OK,
        f"share of the reward's variance within groups: {text or 'there is none'}"
        + (f"; {', '.join(dominated)} outweighs {tally.primary}" if dominated else ""),
        {"shares": shares, "configured": configured},
    )


def _overturn_finding(tally: GroupTally) -> Finding:
    share = tally.overturned_pairs / tally.primary_pairs
    return Finding(
        "overturned order",
        Level.WARN if share > _OVERTURN_SHARE else Level.OK,
        f"{tally.overturned_pairs:,} of {tally.primary_pairs:,} pairs ordered by {tally.primary} "
        f"({share:.1%}) are reversed by the other components, {tally.tied_pairs:,} become ties",
        {
            "overturned": tally.overturned_pairs,
            "tied": tally.tied_pairs,
            "pairs": tally.primary_pairs,
        },
    )


def _gdpo_finding(tally: GroupTally) -> Finding:
    return Finding(
        "sum or gdpo",
        Level.NOTE,
        f"with `combine: gdpo` {tally.gdpo_sign_changes:,} of {tally.num_samples:,} advantages would "
        f"change sign and {tally.gdpo_flat:,} groups would have no variance (now {tally.num_flat:,})",
        {"sign_changes": tally.gdpo_sign_changes, "flat_groups": tally.gdpo_flat},
    )
