"""Does each component work? Finds constant, saturated, silent and failing ones in one pass over the rows."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from verl_lite.lab.check.findings import Finding, Level
from verl_lite.plugins import ScoredRollout

_SATURATED_SHARE = 0.95  # above this nearly every sample has the same value: little is left to learn
_ERROR_SHARE = 0.05  # the default of scoring.max_error_fraction
_MAX_DISTINCT = 1000  # distinct values that are counted


@dataclass(slots=True)
class ComponentTally:
    outcomes: Counter[str] = field(default_factory=Counter)
    values: Counter[float] = field(default_factory=Counter)
    overflow: int = 0  # values beyond the first _MAX_DISTINCT distinct ones

    def add(self, value: float | None, outcome: str) -> None:
        self.outcomes[outcome] += 1
        if value is None:
            return
        if value in self.values or len(self.values) < _MAX_DISTINCT:
            self.values[value] += 1
        else:
            self.overflow += 1

    @property
    def num_rows(self) -> int:
        return self.outcomes.total()

    @property
    def num_values(self) -> int:
        return self.values.total() + self.overflow

    @property
    def most_common(self) -> tuple[float, float]:
        """The most frequent value and its share among the rows that have a value."""
        value, count = self.values.most_common(1)[0]
        return value, count / self.num_values


def tally_components(tallies: dict[str, ComponentTally], row: ScoredRollout) -> None:
    for name, part in row.components.items():
        tallies.setdefault(name, ComponentTally()).add(part.score.value, part.score.outcome)


def component_findings(tallies: dict[str, ComponentTally]) -> Iterator[Finding]:
    for name, tally in tallies.items():
        yield _value_finding(name, tally)
        bad = tally.outcomes["error"] + tally.outcomes["timeout"]
        if bad:
            share = bad / tally.num_rows
            yield Finding(
                check="outcomes",
                level=Level.FAIL if share > _ERROR_SHARE else Level.WARN,
                message=f"{name}: {bad:,} of {tally.num_rows:,} rows have no value because scoring failed "
                f"({tally.outcomes['error']:,} errors, {tally.outcomes['timeout']:,} time-outs)",
                numbers=dict(tally.outcomes),
            )


def _value_finding(name: str, tally: ComponentTally) -> Finding:
    if not tally.num_values:
        return Finding(
            check="dead components",
            level=Level.FAIL,
            message=f"{name} never gave a value on {tally.num_rows:,} rows: does it read the right column?",
            numbers=dict(tally.outcomes),
        )
    value, share = tally.most_common
    numbers = {"most_common_value": value, "share": share, "num_values": tally.num_values}
    if share == 1.0:
        message = f"{name} is {value:g} on every one of {tally.num_values:,} rows: it teaches nothing"
        return Finding(check="dead components", level=Level.FAIL, message=message, numbers=numbers)
    if share >= _SATURATED_SHARE:
        message = f"{name} is saturated: {share:.1%} of its values are {value:g}"
        return Finding(check="saturation", level=Level.WARN, message=message, numbers=numbers)
    message = f"{name} varies; its most common value is {value:g} ({share:.1%})"
    return Finding(check="saturation", level=Level.OK, message=message, numbers=numbers)
