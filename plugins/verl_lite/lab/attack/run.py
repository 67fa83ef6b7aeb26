"""Score every attack on the user's own rows, and count what got through."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.attack.corpus import Attack, attack_rollout, load_attacks, wrong_answers
from verl_lite.lab.formats import converter_for
from verl_lite.lab.scoring import ScoringOptions, open_scorer, primary_component, without_breaker
from verl_lite.plugins import RewardsConfig, Rollout, ScoredRollout, ScoreOutcome
from verl_lite.plugins.records import read_records

__all__ = ["AttackReport", "Exploit", "FamilyTally", "attack_rewards", "default_rows"]

ACCEPTED = 0.5  # a value from here on counts as accepted


@dataclass(slots=True, kw_only=True)
class FamilyTally:
    """One family of attacks: how many were tried, and how many each component accepted."""

    num_attacks: int = 0
    accepted: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    sum_reward: float = 0.0
    num_rewards: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploit:
    """An attack the primary component accepted."""

    attack: str
    family: str
    why: str
    id: str
    value: float
    reward: float | None
    reason: str
    reference: str | None
    completion: str


@dataclass(slots=True, kw_only=True)
class AttackReport:
    primary: str
    num_rows: int
    families: dict[str, FamilyTally] = field(default_factory=dict)
    exploits: list[Exploit] = field(default_factory=list)

    @property
    def num_attacks(self) -> int:
        return sum(family.num_attacks for family in self.families.values())

    @property
    def exploit_rate(self) -> float:
        """The share of attacks that the primary component accepted."""
        return len(self.exploits) / self.num_attacks if self.num_attacks else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "num_attacks": self.num_attacks, "exploit_rate": self.exploit_rate}


def default_rows() -> list[Rollout]:
    """Rows to attack where the user gives none: short sums and one small program with its tests."""
    sums = [("What is 17 + 25?", "42"), ("What is half of one third?", "1/6"), ("What is 2^{10}?", "1024")]
    rows = [
        Rollout(
            id=f"sum-{index}",
            group=f"sum-{index}",
            completion="",
            prompt=({"role": "user", "content": question},),
            reference=answer,
            columns={"question": question, "reference": answer},
        )
        for index, (question, answer) in enumerate(sums)
    ]
    tests = ["assert add(2, 3) == 5", "assert add(-1, 1) == 0", "assert add(10, 5) == 15"]
    columns = {"test_list": tests, "text": "Write a function add(a, b) that adds two numbers."}
    program = Rollout(
        id="program-0",
        group="program-0",
        completion="",
        prompt=({"role": "user", "content": "Write a function def add(a, b): that adds two numbers."},),
        columns=columns,
    )
    return [*rows, program]


def attack_rewards(
    config: RewardsConfig,
    rollouts: str | Path | None = None,
    *,
    primary: str | None = None,
    num_rows: int = 20,
    families: Sequence[str] = (),
    scoring: ScoringOptions | None = None,
) -> AttackReport:
    """Attack the rewards of `config` on the first `num_rows` prompts of `rollouts`.

    `primary` is the component that says what is correct, by default the one with the largest weight.
    Raises ConfigError for an unknown component or family, DataError for rows that cannot be read.
    """
    attacks = _chosen(families)
    scoring = scoring or ScoringOptions()
    rows = default_rows() if rollouts is None else _rows(rollouts, num_rows, scoring.format)
    with open_scorer(without_breaker(config), scoring) as scorer:
        name = primary_component(scorer, primary)
        report = AttackReport(primary=name, num_rows=len(rows))
        others = [row.reference for row in rows if row.reference is not None]
        for attack in attacks:
            made = [attack_rollout(attack, row, wrong_answers(row.reference, others)) for row in rows]
            scored = scorer.score([rollout for rollout in made if rollout is not None]).rows
            for row in scored:
                _count(report, attack, row)
    return report


def _chosen(families: Sequence[str]) -> list[Attack]:
    known = list(dict.fromkeys(attack.family for attack in load_attacks()))
    for family in families:
        if family not in known:
            raise ConfigError(f"--family {family!r}: the families are {', '.join(known)}")
    return [attack for attack in load_attacks() if not families or attack.family in families]


def _rows(path: str | Path, num_rows: int, format_name: str) -> list[Rollout]:
    """One rollout for each of the first prompts."""
    first: dict[str, Rollout] = {}
    for record in read_records(path, convert=converter_for(path, format_name)):
        first.setdefault(record.rollout.group, record.rollout)
        if len(first) == num_rows:
            break
    if not first:
        raise DataError(f"{path} holds no rollouts to attack")
    return list(first.values())


def _count(report: AttackReport, attack: Attack, row: ScoredRollout) -> None:
    family = report.families.setdefault(attack.family, FamilyTally())
    family.num_attacks += 1
    if row.reward is not None:
        family.sum_reward += row.reward
        family.num_rewards += 1
    for name, part in row.components.items():
        accepts = part.score.value is not None and part.score.value >= ACCEPTED
        family.accepted[name] = family.accepted.get(name, 0) + accepts
        if part.score.outcome in (ScoreOutcome.ERROR, ScoreOutcome.TIMEOUT):
            family.failures[name] = family.failures.get(name, 0) + 1
    score = row.components[report.primary].score
    if score.value is not None and score.value >= ACCEPTED:
        report.exploits.append(
            Exploit(
                attack=attack.name,
                family=attack.family,
                why=attack.why,
                id=row.rollout.id,
                value=score.value,
                reward=row.reward,
                reason=score.reason,
                reference=row.rollout.reference,
                completion=row.rollout.completion[:2000],
            )
        )
