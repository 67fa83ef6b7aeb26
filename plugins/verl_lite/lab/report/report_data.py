"""Collect the report's data from a file of rollouts or a run folder, finished or still growing."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from verl_lite.errors import DataError
from verl_lite.lab.formats import AUTO
from verl_lite.lab.reading import Sources, open_rollouts
from verl_lite.lab.reading.run_folders import is_evaluation, is_run, run_records
from verl_lite.lab.report.columns import find_label, rollout_columns
from verl_lite.lab.report.evaluations import evaluation_data
from verl_lite.lab.report.runs import run_data
from verl_lite.lab.report.tallies import Correlations, Histogram
from verl_lite.lab.statistics import Confusion
from verl_lite.plugins.records import Record
from verl_lite.plugins.statistics import has_zero_variance

_NUM_SLOWEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """max_rollouts  rollouts in the browser; beyond that, a random choice of whole groups
    label         the label column; by default one of label, is_correct, correct
    format        who wrote the rollouts (lab/formats); "auto" looks at the first row
    renames       columns by other names: new name -> path in the row
    """

    max_rollouts: int = 50_000
    label: str | None = None
    title: str = ""
    format: str = AUTO
    renames: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


@dataclass(slots=True)
class _Gathered:
    num_rows: int = 0
    num_groups: int = 0
    num_flat: int = 0
    num_dropped: int = 0
    histograms: dict[str, Histogram] = field(default_factory=dict)
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    correlations: Correlations = field(default_factory=Correlations)
    verdicts: dict[str, list[tuple[bool, bool]]] = field(default_factory=dict)
    slowest: list[tuple[float, str, str]] = field(default_factory=list)
    groups: list[tuple[int, list[Record]]] = field(default_factory=list)
    num_kept: int = 0


def shown_rollouts(sources: Sequence[str | Path]) -> list[str | Path]:
    """The sources whose rollouts a report shows: the first if it is a run or an evaluation, else all others.

    Empty for a run that kept no rollouts.
    """
    folders = [source for source in sources if _is_folder_of_ours(Path(source))]
    shown = [sources[0]] if sources[0] in folders else [s for s in sources if s not in folders]
    return shown if run_records(Path(shown[0])) != [] else []


def _is_folder_of_ours(folder: Path) -> bool:
    return is_run(folder) or is_evaluation(folder)


def collect(
    sources: Sequence[str | Path], options: ReportOptions | None = None, *, rollouts: Sources | None = None
) -> dict[str, Any]:
    """The report's data, ready for JSON. The first source is shown in full; further runs add curves.

    A source is anything that `open_rollouts` takes; those that are the run folder of `train`, `sft`, `dpo`
    or `reward-model`, or the --out folder of an evaluation, add their curves. `rollouts` are shown instead
    of those of `shown_rollouts`. Raises DataError where there is nothing to show.
    """
    options = options or ReportOptions()
    paths = [Path(source) for source in sources]
    folders = [path for path in paths if _is_folder_of_ours(path)]
    gathered = _gather(rollouts or shown_rollouts(sources), options)
    if not gathered.num_rows and not folders:
        raise DataError(
            f"{paths[0]} holds neither rollouts nor metrics nor results of an evaluation: expected a run "
            "folder, the --out folder of an eval, or a record file"
        )
    records = [record for _, group in sorted(gathered.groups, key=lambda item: item[0]) for record in group]
    return {
        "title": options.title or paths[0].stem,
        "source": paths[0].name,
        "summary": {
            "num_rows": gathered.num_rows,
            "num_groups": gathered.num_groups,
            "num_flat": gathered.num_flat,
            "num_dropped": gathered.num_dropped,
            "num_shown": len(records),
        },
        "histograms": {name: tally.to_json() for name, tally in gathered.histograms.items()},
        "outcomes": gathered.outcomes,
        "correlations": gathered.correlations.to_json(),
        "confusion": {name: _confusion_json(pairs) for name, pairs in gathered.verdicts.items()},
        "slowest": gathered.slowest,
        "runs": [run_data(path) for path in folders if is_run(path)],
        "evaluations": [evaluation_data(path) for path in folders if is_evaluation(path)],
        "rollouts": rollout_columns(records, options.label),
    }


def _gather(sources: Sources, options: ReportOptions) -> _Gathered:
    """The tallies of all rollouts and the groups to show."""
    gathered = _Gathered()
    if sources:
        rng = random.Random(options.seed)
        with open_rollouts(sources, format=options.format, renames=options.renames) as rollouts:
            for group in rollouts.groups():
                _add_group(gathered, group, options, rng)
    gathered.slowest = sorted(gathered.slowest, reverse=True)[:_NUM_SLOWEST]
    return gathered


def _add_group(gathered: _Gathered, group: list[Record], options: ReportOptions, rng: random.Random) -> None:
    gathered.num_groups += 1
    rewards = [record.reward for record in group if record.reward is not None]
    gathered.num_flat += bool(rewards) and has_zero_variance(rewards)
    for record in group:
        _tally(gathered, record, options)
    if gathered.num_kept + len(group) <= options.max_rollouts:
        gathered.groups.append((gathered.num_groups, group))
        gathered.num_kept += len(group)
    elif gathered.groups:
        place = rng.randrange(gathered.num_groups)
        if place < len(gathered.groups):
            gathered.num_kept += len(group) - len(gathered.groups[place][1])
            gathered.groups[place] = (gathered.num_groups, group)


def _tally(gathered: _Gathered, record: Record, options: ReportOptions) -> None:
    gathered.num_rows += 1
    values = {name: s.value for name, s in record.components.items() if s.value is not None}
    if record.reward is None:
        gathered.num_dropped += bool(record.dropped_because)
    else:
        values["reward"] = record.reward
    for name, value in values.items():
        gathered.histograms.setdefault(name, Histogram()).add(value)
    gathered.correlations.add(values)
    label = find_label(record, options.label)
    for name, score in record.components.items():
        counts = gathered.outcomes.setdefault(name, {})
        counts[score.outcome] = counts.get(score.outcome, 0) + 1
        gathered.slowest.append((score.latency_s, name, record.rollout.id))
        if label is not None and score.value is not None:
            gathered.verdicts.setdefault(name, []).append((score.value >= 0.5, label))
    if len(gathered.slowest) > 4096:
        gathered.slowest = sorted(gathered.slowest, reverse=True)[:_NUM_SLOWEST]


def _confusion_json(pairs: list[tuple[bool, bool]]) -> dict[str, Any]:
    confusion = Confusion.count(pairs)
    return {**asdict(confusion), "precision": confusion.precision, "recall": confusion.recall}
