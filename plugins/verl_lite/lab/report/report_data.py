"""Collect the report's data from a file of rollouts or a run folder, finished or still growing."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from verl_lite.errors import DataError
from verl_lite.lab.formats import AUTO, converter_for
from verl_lite.lab.groups import consecutive_groups
from verl_lite.lab.report.columns import find_label, rollout_columns
from verl_lite.lab.report.evaluations import evaluation_data, is_evaluation, sample_files
from verl_lite.lab.report.runs import is_run, record_files, run_data
from verl_lite.lab.report.tallies import Correlations, Histogram
from verl_lite.lab.statistics import Confusion
from verl_lite.plugins.records import Record, read_records
from verl_lite.plugins.statistics import has_zero_variance

_NUM_SLOWEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """max_rollouts  rollouts in the browser; beyond that, a random choice of whole groups
    label         the label column; by default one of label, is_correct, correct
    format        who wrote the rollouts (lab/formats); "auto" looks at the first row
    """

    max_rollouts: int = 50_000
    label: str | None = None
    title: str = ""
    format: str = AUTO
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


def collect(sources: Sequence[str | Path], options: ReportOptions | None = None) -> dict[str, Any]:
    """The report's data, ready for JSON. The first source is shown in full; further runs add curves.

    A source is a record file, the run folder of `train`, `sft`, `dpo` or `reward-model` (its `rollouts/`,
    `metrics.jsonl`, `config.yaml`, ...) or the --out folder of an evaluation.
    Raises DataError where there is nothing to show.
    """
    options = options or ReportOptions()
    paths = [Path(source) for source in sources]
    gathered = _gather(_records(paths[0], options.format), options)
    has_more = is_run(paths[0]) or is_evaluation(paths[0])
    if not gathered.num_rows and not has_more:
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
        "runs": [run_data(path) for path in paths if path.is_dir() and not is_evaluation(path)],
        "evaluations": [evaluation_data(path) for path in paths if is_evaluation(path)],
        "rollouts": rollout_columns(records, options.label),
    }


def _records(path: Path, format_name: str) -> Iterator[Record]:
    if not path.is_dir():
        return read_records(path, convert=converter_for(path, format_name))
    files = sample_files(path) if is_evaluation(path) else record_files(path)
    return chain.from_iterable(map(read_records, files))


def _gather(records: Iterator[Record], options: ReportOptions) -> _Gathered:
    gathered = _Gathered()
    rng = random.Random(options.seed)
    for group in consecutive_groups(records):
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
    gathered.slowest = sorted(gathered.slowest, reverse=True)[:_NUM_SLOWEST]
    return gathered


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
