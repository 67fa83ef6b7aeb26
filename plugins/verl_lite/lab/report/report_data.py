"""Collect the report's data from a file of rollouts or a run folder, finished or still growing."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from verl_lite.errors import DataError
from verl_lite.lab.diff import DiffReport, paired_groups
from verl_lite.lab.formats import AUTO
from verl_lite.lab.reading import Sources, open_rollouts
from verl_lite.lab.reading.run_folders import is_evaluation, is_run, run_records
from verl_lite.lab.report.columns import (
    Block,
    Column,
    Group,
    component_columns,
    find_label,
    page_rows,
    spread,
)
from verl_lite.lab.report.evaluations import evaluation_data
from verl_lite.lab.report.runs import run_data
from verl_lite.lab.report.tokens import token_texts
from verl_lite.plugins.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """max_rollouts  rollouts in the browser; beyond that, a random choice of whole groups
    label         the label column; by default one of label, is_correct, correct
    format        who wrote the rollouts (lab/formats); "auto" looks at the first row
    renames       columns by other names: new name -> path in the row
    against       earlier scores of the same rollouts, to show what changed
    tokenizer     folder with a tokenizer.json, for the texts of tokens; by default a run's own
    """

    max_rollouts: int = 50_000
    label: str | None = None
    title: str = ""
    format: str = AUTO
    renames: Mapping[str, str] = field(default_factory=dict)
    against: str | None = None
    tokenizer: Path | None = None
    seed: int = 0


class Summary(TypedDict):
    """Counts over all rows, also those that are not in the page.

    num_flat     groups whose rewards are all equal
    failed       component -> outcome (error, timeout, abstain) -> rows
    labels       component -> [accepted and right, accepted and wrong, rejected and right, rejected and wrong]
    primary      the component with the largest weight, which the labels are about
    """

    num_rows: int
    num_groups: int
    num_flat: int
    num_dropped: int
    num_shown: int
    num_rewarded: int
    mean_reward: float | None
    failed: dict[str, dict[str, int]]
    labels: dict[str, list[int]]
    primary: str


class ReportData(TypedDict):
    title: str
    source: str
    summary: Summary
    components: dict[str, str]
    columns: list[Column]
    blocks: list[Block]
    token_texts: dict[str, str]
    diff: dict[str, object] | None
    runs: list[dict[str, object]]
    evaluations: list[dict[str, object]]


@dataclass(slots=True)
class _Gathered:
    """Tallies of all rows, and the groups to show with their places in the file."""

    num_rows: int = 0
    num_groups: int = 0
    num_flat: int = 0
    num_dropped: int = 0
    num_rewarded: int = 0
    sum_rewards: float = 0.0
    failed: dict[str, Counter[str]] = field(default_factory=dict)
    labels: dict[str, list[int]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    groups: list[tuple[int, Group]] = field(default_factory=list)
    num_kept: int = 0
    diff: DiffReport | None = None

    @property
    def primary(self) -> str:
        return max(self.weights, key=lambda name: abs(self.weights[name]), default="")


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
) -> ReportData:
    """The report's data, ready for JSON. The first source is shown in full; further runs add curves.

    A source is anything that `open_rollouts` takes; those that are the run folder of `train`, `sft`, `dpo`
    or `reward-model`, or the --out folder of an evaluation, add their curves. `rollouts` are shown instead
    of those of `shown_rollouts`. Raises DataError where there is nothing to show, and where the earlier
    scores are of other rollouts.
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
    groups = [group for _, group in sorted(gathered.groups, key=lambda item: item[0])]
    records = [record for group in groups for record in group.rows]
    columns, blocks = page_rows(groups, options.label)
    return {
        "title": options.title or paths[0].stem,
        "source": paths[0].name,
        "summary": _summary(gathered, num_shown=len(records)),
        "components": component_columns(records),
        "columns": columns,
        "blocks": blocks,
        "token_texts": token_texts(records, options.tokenizer, folders),
        "diff": gathered.diff.to_json() if gathered.diff else None,
        "runs": [run_data(path) for path in folders if is_run(path)],
        "evaluations": [evaluation_data(path) for path in folders if is_evaluation(path)],
    }


def _summary(gathered: _Gathered, *, num_shown: int) -> Summary:
    return {
        "num_rows": gathered.num_rows,
        "num_groups": gathered.num_groups,
        "num_flat": gathered.num_flat,
        "num_dropped": gathered.num_dropped,
        "num_shown": num_shown,
        "num_rewarded": gathered.num_rewarded,
        "mean_reward": gathered.sum_rewards / gathered.num_rewarded if gathered.num_rewarded else None,
        "failed": {name: dict(counts) for name, counts in gathered.failed.items()},
        "labels": gathered.labels,
        "primary": gathered.primary,
    }


def _gather(sources: Sources, options: ReportOptions) -> _Gathered:
    """The tallies of all rollouts and the groups to show."""
    gathered = _Gathered(diff=DiffReport.empty() if options.against else None)
    if sources:
        rng = random.Random(options.seed)
        for group in _groups(sources, options):
            if gathered.diff:
                gathered.diff.add(list(zip(group.before, group.rows, strict=True)))
            _add_group(gathered, group, options, rng)
    return gathered


def _groups(sources: Sources, options: ReportOptions) -> Iterator[Group]:
    with ExitStack() as stack:
        opened = open_rollouts(sources, format=options.format, renames=options.renames)
        after = stack.enter_context(opened).groups()
        if options.against is None:
            yield from (Group(rows=rows) for rows in after)
            return
        before = stack.enter_context(open_rollouts(options.against)).groups()
        for pairs in paired_groups(before, after):
            yield Group(rows=[new for _, new in pairs], before=[old for old, _ in pairs])


def _add_group(gathered: _Gathered, group: Group, options: ReportOptions, rng: random.Random) -> None:
    gathered.num_groups += 1
    gathered.num_flat += spread(group.rows) == 0.0
    for record in group.rows:
        _tally(gathered, record, options)
    size = len(group.rows)
    if gathered.num_kept + size <= options.max_rollouts:
        gathered.groups.append((gathered.num_groups, group))
        gathered.num_kept += size
    elif gathered.groups:
        place = rng.randrange(gathered.num_groups)
        if place < len(gathered.groups):
            gathered.num_kept += size - len(gathered.groups[place][1].rows)
            gathered.groups[place] = (gathered.num_groups, group)


def _tally(gathered: _Gathered, record: Record, options: ReportOptions) -> None:
    gathered.num_rows += 1
    if record.reward is None:
        gathered.num_dropped += bool(record.dropped_because)
    else:
        gathered.num_rewarded += 1
        gathered.sum_rewards += record.reward
    label = find_label(record, options.label)
    for name, score in record.components.items():
        if "/" not in name:
            gathered.weights.setdefault(name, score.weight)
        if score.value is None:
            gathered.failed.setdefault(name, Counter())[score.outcome] += 1
        elif label is not None:
            counts = gathered.labels.setdefault(name, [0, 0, 0, 0])
            counts[2 * (score.value < 0.5) + (not label)] += 1
