"""Does each component work? Finds constant, saturated, silent and failing ones in one pass over the rows."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from verl_lite.lab.check.findings import Finding, Level
from verl_lite.lab.reasons import Reason, ReasonTally
from verl_lite.plugins import Component, Score, ScoredRollout
from verl_lite.plugins.execution.calls import source_of

_SATURATED_SHARE = 0.95  # above this nearly every sample has the same value: little is left to learn
_ERROR_SHARE = 0.05  # the default of scoring.max_error_fraction
_MAX_DISTINCT = 1000  # distinct values that are counted


@dataclass(slots=True)
class ComponentTally:
    outcomes: Counter[str] = field(default_factory=Counter)
    values: Counter[float] = field(default_factory=Counter)
    overflow: int = 0  # values beyond the first _MAX_DISTINCT distinct ones
    steps: Counter[float] = field(default_factory=Counter)  # values of its process rewards
    reasons: ReasonTally = field(default_factory=ReasonTally)

    def add(self, score: Score, row_id: str) -> None:
        value = score.value
        self.outcomes[score.outcome] += 1
        if value is None:
            self.reasons.add(score, row_id)
            return
        if score.steps and len(self.steps) < _MAX_DISTINCT:
            self.steps.update(step.value for step in score.steps)
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
        tallies.setdefault(name, ComponentTally()).add(part.score, row.rollout.id)


def component_findings(
    tallies: Mapping[str, ComponentTally], components: Iterable[Component] = ()
) -> Iterator[Finding]:
    """What each component did; `components` say where their rewards are defined."""
    sources = {component.name: source_of(component.definition) for component in components}
    for name, tally in tallies.items():
        why = tally.reasons.commonest(source=sources.get(name, ""))
        yield _value_finding(name, tally, why)
        bad = tally.outcomes["error"] + tally.outcomes["timeout"]
        if bad:
            share = bad / tally.num_rows
            yield Finding(
                "outcomes",
                Level.FAIL if share > _ERROR_SHARE else Level.WARN,
                f"{name}: {bad:,} of {tally.num_rows:,} rows have no value because scoring failed "
                f"({tally.outcomes['error']:,} errors, {tally.outcomes['timeout']:,} time-outs)"
                + (_listed(why) if tally.num_values else ""),  # without values the finding before lists them
                {**tally.outcomes, "reasons": [asdict(reason) for reason in why]},
            )


def _value_finding(name: str, tally: ComponentTally, why: Sequence[Reason]) -> Finding:
    if not tally.num_values:
        return Finding(
            "dead components",
            Level.FAIL,
            f"{name} never gave a value on {tally.num_rows:,} rows: does it read the right column?"
            + _listed(why),
            {**tally.outcomes, "reasons": [asdict(reason) for reason in why]},
        )
    value, share = tally.most_common
    numbers = {"most_common_value": value, "share": share, "num_values": tally.num_values}
    if share == 1.0 and tally.steps:
        return _step_finding(name, tally)
    if share == 1.0:
        message = f"{name} is {value:g} on every one of {tally.num_values:,} rows: it teaches nothing"
        return Finding("dead components", Level.FAIL, message, numbers)
    if share >= _SATURATED_SHARE:
        message = f"{name} is saturated: {share:.1%} of its values are {value:g}"
        return Finding("saturation", Level.WARN, message, numbers)
    message = f"{name} varies; its most common value is {value:g} ({share:.1%})"
    return Finding("saturation", Level.OK, message, numbers)


def _step_finding(name: str, tally: ComponentTally) -> Finding:
    """A process reward that gives whole completions one value: its steps are what it teaches."""
    step, count = tally.steps.most_common(1)[0]
    total = tally.steps.total()
    numbers = {"most_common_step": step, "share": count / total, "num_steps": total}
    if len(tally.steps) == 1:
        message = f"{name} is a process reward, and each of its {total:,} steps is {step:g}: nothing differs"
        return Finding("saturation", Level.WARN, message, numbers)
    share = f"{count / total:.1%}"
    message = f"{name} is a process reward of {total:,} steps; the most common is {step:g} ({share})"
    return Finding("saturation", Level.OK, message, numbers)


def _listed(why: Sequence[Reason]) -> str:
    return "".join(f"\n        {reason.sentence}" for reason in why)
