"""`verl-lite check`: all checks on a file of rollouts, in one streamed pass and a few probes."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from verl_lite.lab.cache import digest
from verl_lite.lab.check.components import ComponentTally, component_findings, tally_components
from verl_lite.lab.check.findings import CheckReport, Finding, Level
from verl_lite.lab.check.group_effects import GroupTally, group_findings
from verl_lite.lab.check.labels import LabelTally, label_findings, read_label
from verl_lite.lab.check.probes import (
    determinism,
    empty_answers,
    own_references,
    swapped_references,
    uncomputed_answers,
)
from verl_lite.lab.groups import consecutive_groups
from verl_lite.lab.reading import Sources, open_rollouts
from verl_lite.lab.scoring import (
    ScoringOptions,
    open_scorer,
    primary_component,
    score_groups,
    without_breaker,
)
from verl_lite.plugins import RewardsConfig, Rollout, ScoredRollout
from verl_lite.plugins.progress import counted, stage
from verl_lite.plugins.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """label       the column that says whether the completion is really correct
    by          columns to slice the agreement by, such as the data source
    primary     the component that says what is correct; by default the one with the largest weight
    num_probes  number of rollouts the probes score (whole groups, sampled with `seed`)
    """

    label: str | None = None
    by: tuple[str, ...] = ("data_source", "source", "answer_type")
    primary: str | None = None
    num_probes: int = 400
    seed: int = 0


@dataclass(slots=True)
class _Tallies:
    groups: GroupTally
    components: dict[str, ComponentTally] = field(default_factory=dict)
    labels: dict[str, LabelTally] = field(default_factory=lambda: defaultdict(LabelTally))
    prompts: dict[bytes, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    prompt_groups: dict[bytes, set[str]] = field(default_factory=lambda: defaultdict(set))
    num_rows: int = 0
    num_groups: int = 0


def check_file(
    sources: Sources,
    config: RewardsConfig,
    *,
    check: CheckOptions | None = None,
    scoring: ScoringOptions | None = None,
) -> CheckReport:
    """Check the rewards of `config` on the rollouts of `sources`.

    Raises DataError for a file or label that cannot be read, ConfigError for an unknown `primary`.
    """
    check, scoring = check or CheckOptions(), scoring or ScoringOptions()
    config = without_breaker(config)
    with (
        open_rollouts(sources, format=scoring.format, renames=scoring.mapping(config)) as rollouts,
        open_scorer(config, scoring) as scorer,
        open_scorer(config, replace(scoring, workers=1)) as other,
    ):
        primary = primary_component(scorer, check.primary)
        tallies = _Tallies(groups=GroupTally(primary=primary))
        sample = _Sample(check.num_probes, check.seed)
        with stage("scoring", total=rollouts.num_rows) as advance:
            for chunk, rows in score_groups(rollouts.groups(), scorer, advance=advance):
                remaining = iter(rows)
                for records in consecutive_groups(chunk):
                    group = [next(remaining) for _ in records]
                    _add_group(tallies, group, check)
                    sample.add(records)
        probes = (
            partial(determinism, sample.groups, scorer, other, seed=check.seed),
            partial(own_references, sample.groups, scorer, primary),
            partial(empty_answers, sample.groups, scorer, primary),
            partial(swapped_references, sample.groups, scorer, primary, seed=check.seed),
            partial(uncomputed_answers, sample.groups, scorer, primary),
        )
        findings = [
            *component_findings(tallies.components, scorer.components),
            *group_findings(tallies.groups),
            *label_findings(tallies.labels, primary),
            *_duplicates(tallies),
            *(probe() for probe in counted(probes, "probing", total=len(probes))),
        ]
    return CheckReport(num_rows=tallies.num_rows, num_groups=tallies.num_groups, findings=tuple(findings))


def _add_group(tallies: _Tallies, group: Sequence[ScoredRollout], check: CheckOptions) -> None:
    tallies.num_groups += 1
    tallies.num_rows += len(group)
    tallies.groups.add(group)
    for row in group:
        tally_components(tallies.components, row)
        if check.label is not None:
            label = read_label(row.rollout, check.label)
            for name in row.components:
                tallies.labels[name].add(row, name, label, check.by)
    first = group[0].rollout
    if first.prompt:
        prompt = digest(first.prompt)
        tallies.prompts[prompt].add(digest(first.reference))
        tallies.prompt_groups[prompt].add(first.group)


def _duplicates(tallies: _Tallies) -> Iterator[Finding]:
    repeated = sum(len(groups) > 1 for groups in tallies.prompt_groups.values())
    conflicting = sum(len(references) > 1 for references in tallies.prompts.values())
    yield Finding(
        "duplicate prompts",
        Level.FAIL if conflicting else Level.WARN if repeated else Level.OK,
        f"{repeated:,} prompts are in more than one group, {conflicting:,} have different references",
        {"repeated": repeated, "conflicting": conflicting, "num_prompts": len(tallies.prompts)},
    )


class _Sample:
    """Whole groups of about `size` rollouts, each group of the file equally likely (reservoir sampling)."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._rng = random.Random(seed)
        self._seen = 0
        self.groups: list[list[Rollout]] = []

    def add(self, records: Sequence[Record]) -> None:
        # A prompt's samples at another step are another group and must not join this one in a probe's batch.
        group = [replace(r.rollout, group=f"{r.rollout.group}@{r.step}") for r in records]
        self._seen += 1
        if sum(map(len, self.groups)) < self._size:
            self.groups.append(group)
            return
        place = self._rng.randrange(self._seen)
        if place < len(self.groups):
            self.groups[place] = group
