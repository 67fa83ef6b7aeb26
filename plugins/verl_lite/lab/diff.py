"""What changes between two scorings of the same rollouts: verdicts, components and GRPO's advantages.

Both sides are record streams with the same rollouts in the same order: two reward configs, two
versions of a plugin, or the scores recorded in training against new ones.
A component whose values are all 0 or 1 on both sides is a verdict: its changes are flips. Others
(lengths, learned rewards) have deltas; a flip of those would only restate an arbitrary threshold.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest

from verl_lite.errors import DataError
from verl_lite.lab.html import html_table
from verl_lite.lab.statistics import group_advantages, pair_inversions
from verl_lite.plugins.records import Record, StoredScore

REWARD = "reward"  # the combined reward is compared like a component
Pairs = list[tuple[Record, Record]]  # of one group
_MISSING = StoredScore(value=None, outcome="absent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row that changed, with both sides' values and reasons."""

    component: str
    row: int
    id: str
    before: float | None
    after: float | None
    outcome_before: str
    outcome_after: str
    reason_before: str
    reason_after: str
    reference: str | None
    completion: str


@dataclass(slots=True, kw_only=True)
class ComponentDiff:
    """Tallies of one component. Deltas are after minus before, over rows with a value on both sides."""

    name: str
    num_rows: int = 0
    num_changed: int = 0
    flips_up: int = 0  # 0 -> 1
    flips_down: int = 0  # 1 -> 0
    sum_delta: float = 0.0
    sum_abs_delta: float = 0.0
    max_abs_delta: float = 0.0
    outcome_changes: Counter[str] = field(default_factory=Counter)
    is_verdict: bool = True
    examples: list[Example] = field(default_factory=list)

    @property
    def num_flips(self) -> int:
        """Changed verdicts, including rows that gained or lost their value; 0 for other components."""
        if not self.is_verdict:
            return 0
        return self.flips_up + self.flips_down + sum(self.outcome_changes.values())

    def add(self, before: StoredScore, after: StoredScore) -> bool:
        """Count one row and return whether it changed."""
        self.num_rows += 1
        if before.outcome != after.outcome:
            self.outcome_changes[f"{before.outcome} -> {after.outcome}"] += 1
        for side in (before.value, after.value):
            if side is not None and side not in (0.0, 1.0):
                self.is_verdict = False
        if before.value is None or after.value is None:
            changed = before.outcome != after.outcome
        else:
            delta = after.value - before.value
            self.sum_delta += delta
            self.sum_abs_delta += abs(delta)
            self.max_abs_delta = max(self.max_abs_delta, abs(delta))
            self.flips_up += before.value == 0.0 and after.value == 1.0
            self.flips_down += before.value == 1.0 and after.value == 0.0
            changed = delta != 0.0
        self.num_changed += changed
        return changed


@dataclass(slots=True, kw_only=True)
class GrpoDiff:
    """What a GRPO step would see differently, over the groups of the file."""

    num_groups: int = 0
    groups_changed: int = 0
    gained_all_variance: int = 0  # equal rewards before, different ones after: GRPO starts to learn from it
    lost_all_variance: int = 0  # GRPO stops learning from it
    advantages_changing_sign: int = 0
    samples_newly_dropped: int = 0
    samples_no_longer_dropped: int = 0
    groups_with_rank_changes: int = 0
    rank_inversions: int = 0
    max_advantage_change: float = 0.0

    def add(self, before: list[float | None], after: list[float | None]) -> None:
        self.num_groups += 1
        if before == after:
            return
        self.groups_changed += 1
        old, new = group_advantages(before), group_advantages(after)
        had, has = any(old), any(new)
        self.gained_all_variance += has and not had
        self.lost_all_variance += had and not has
        self.samples_newly_dropped += sum(n is None and o is not None for o, n in zip(old, new, strict=True))
        self.samples_no_longer_dropped += sum(
            o is None and n is not None for o, n in zip(old, new, strict=True)
        )
        both = [(o, n) for o, n in zip(old, new, strict=True) if o is not None and n is not None]
        self.advantages_changing_sign += sum(o * n < 0 for o, n in both)
        self.max_advantage_change = max([self.max_advantage_change, *(abs(n - o) for o, n in both)])
        inversions = pair_inversions([o for o, _ in both], [n for _, n in both])
        self.rank_inversions += inversions
        self.groups_with_rank_changes += inversions > 0


@dataclass(slots=True, kw_only=True)
class DiffReport:
    reward: ComponentDiff
    components: dict[str, ComponentDiff]
    grpo: GrpoDiff

    @classmethod
    def empty(cls) -> "DiffReport":
        return cls(reward=ComponentDiff(name=REWARD), components={}, grpo=GrpoDiff())

    @property
    def num_flips(self) -> int:
        return sum(part.num_flips for part in self.components.values())

    def add(self, pairs: Pairs, *, max_examples: int = 10) -> None:
        """Count one group, as (before, after) of each row."""
        for old, new in pairs:
            _add_row(self, old, new, max_examples)
        self.grpo.add([old.reward for old, _ in pairs], [new.reward for _, new in pairs])

    def _repr_html_(self) -> str:
        parts = [*self.components.values(), self.reward]
        rows = [[part.name, part.num_changed, part.flips_up, part.flips_down] for part in parts]
        heads = ["component", f"changed of {self.reward.num_rows:,}", "0 to 1", "1 to 0"]
        grpo = [[name.replace("_", " "), value] for name, value in asdict(self.grpo).items()]
        return html_table(heads, rows) + html_table(["what GRPO would see", ""], grpo)

    def to_json(self) -> dict[str, object]:
        return {
            "num_rows": self.reward.num_rows,
            "num_flips": self.num_flips,
            "reward": _component_json(self.reward),
            "components": {name: _component_json(part) for name, part in self.components.items()},
            "grpo": asdict(self.grpo),
        }


def _component_json(part: ComponentDiff) -> dict[str, object]:
    outcomes = dict(part.outcome_changes)  # asdict cannot copy a Counter: it would count its items
    data = asdict(replace(part, outcome_changes=Counter()))
    return {**data, "num_flips": part.num_flips, "outcome_changes": outcomes}


def diff_groups(
    before: Iterable[list[Record]], after: Iterable[list[Record]], *, max_examples: int = 10
) -> DiffReport:
    """Compare two scorings group by group; at most `max_examples` changed rows per component are kept.

    Raises DataError unless both sides hold the same rollouts in the same order of groups.
    """
    report = DiffReport.empty()
    for pairs in paired_groups(before, after):
        report.add(pairs, max_examples=max_examples)
    return report


def paired_groups(before: Iterable[list[Record]], after: Iterable[list[Record]]) -> Iterator[Pairs]:
    """(before, after) of each row, group by group; raises DataError where the rollouts are not the same."""
    for old, new in zip_longest(before, after):
        if old is None or new is None or len(old) != len(new):
            where = (old or new)[0].row
            raise DataError(f"the two sides differ at row {where}: they must hold the same rollouts in order")
        pairs = list(zip(old, new, strict=True))
        for first, second in pairs:
            if first.rollout.completion != second.rollout.completion:
                raise DataError(
                    f"row {first.row} ({first.rollout.id}) is another completion on the two sides: "
                    "diff compares two scorings of the same rollouts"
                )
        yield pairs


def _add_row(report: DiffReport, old: Record, new: Record, max_examples: int) -> None:
    _add_component(report.reward, _reward_score(old), _reward_score(new), old, max_examples)
    for name in {**old.components, **new.components}:
        part = report.components.setdefault(name, ComponentDiff(name=name))
        before = old.components.get(name, _MISSING)
        _add_component(part, before, new.components.get(name, _MISSING), old, max_examples)


def _reward_score(record: Record) -> StoredScore:
    if record.reward is None:
        return StoredScore(value=None, outcome="dropped", reason=record.dropped_because)
    return StoredScore(value=record.reward, outcome="ok")


def _add_component(
    part: ComponentDiff, before: StoredScore, after: StoredScore, record: Record, max_examples: int
) -> None:
    changed = part.add(before, after)
    is_on_both = before is not _MISSING and after is not _MISSING
    if changed and is_on_both and len(part.examples) < max_examples:
        part.examples.append(
            Example(
                component=part.name,
                row=record.row,
                id=record.rollout.id,
                before=before.value,
                after=after.value,
                outcome_before=before.outcome,
                outcome_after=after.outcome,
                reason_before=before.reason,
                reason_after=after.reason,
                reference=record.rollout.reference,
                completion=record.rollout.completion,
            )
        )
