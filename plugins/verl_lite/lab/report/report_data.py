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
from verl_lite.lab.report.runs import evaluation_data, run_data
from verl_lite.lab.report.tokens import token_texts
from verl_lite.plugins.progress import counted
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


@dataclass(kw_only=True)
class Summary:
    """Counts over all rows, also those that are not in the page.

    num_flat     groups whose rewards are all equal
    failed       component -> outcome (error, timeout, abstain) -> rows
    labels       component -> [accepted and right, accepted and wrong, rejected and right, rejected and wrong]
    primary      the component with the largest weight, which the labels are about
    """

    num_rows: int = 0
    num_groups: int = 0
    num_flat: int = 0
    num_dropped: int = 0
    num_shown: int = 0
    num_rewarded: int = 0
    mean_reward: float | None = None
    failed: dict[str, Counter[str]] = field(default_factory=dict)
    labels: dict[str, list[int]] = field(default_factory=dict)
    primary: str = ""


class ReportData(TypedDict):
    title: str
    source: str
    summary: dict[str, object]
    components: dict[str, str]
    columns: list[Column]
    blocks: list[Block]
    token_texts: dict[str, str]
    diff: dict[str, object] | None
    runs: list[dict[str, object]]
    evaluations: list[dict[str, object]]


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
    summary = Summary()
    diff = DiffReport.empty() if options.against else None
    groups = _gather(rollouts or shown_rollouts(sources), options, summary, diff)
    if not summary.num_rows and not folders:
        raise DataError(
            f"{paths[0]} holds neither rollouts nor metrics nor results of an evaluation: expected a run "
            "folder, the --out folder of an eval, or a record file"
        )
    records = [record for group in groups for record in group.rows]
    columns, blocks = page_rows(groups, options.label)
    return {
        "title": options.title or paths[0].stem,
        "source": paths[0].name,
        "summary": vars(summary),
        "components": component_columns(records),
        "columns": columns,
        "blocks": blocks,
        "token_texts": token_texts(records, options.tokenizer, folders),
        "diff": diff.to_json() if diff else None,
        "runs": [run_data(path) for path in folders if is_run(path)],
        "evaluations": [evaluation_data(path) for path in folders if is_evaluation(path)],
    }


def _gather(
    sources: Sources, options: ReportOptions, summary: Summary, diff: DiffReport | None
) -> list[Group]:
    """The groups to show, in the file's order: a random choice where they are too many; counts all rows."""
    rng = random.Random(options.seed)
    weights: dict[str, float] = {}
    rewards = 0.0
    kept: list[tuple[int, Group]] = []
    for number, group in enumerate(_groups(sources, options) if sources else (), start=1):
        if diff:
            diff.add(list(zip(group.before, group.rows, strict=True)))
        summary.num_groups = number
        summary.num_flat += spread(group.rows) == 0.0
        for record in group.rows:
            _tally(summary, record, options)
            rewards += record.reward or 0.0
            weights = {**{n: s.weight for n, s in record.components.items() if "/" not in n}, **weights}
        size = len(group.rows)
        if summary.num_shown + size <= options.max_rollouts:
            kept.append((number, group))
            summary.num_shown += size
        elif kept and (place := rng.randrange(number)) < len(kept):
            summary.num_shown += size - len(kept[place][1].rows)
            kept[place] = (number, group)
    summary.mean_reward = rewards / summary.num_rewarded if summary.num_rewarded else None
    summary.primary = max(weights, key=lambda name: abs(weights[name]), default="")
    return [group for _, group in sorted(kept, key=lambda item: item[0])]


def _groups(sources: Sources, options: ReportOptions) -> Iterator[Group]:
    with ExitStack() as stack:
        opened = open_rollouts(sources, format=options.format, renames=options.renames)
        rollouts = stack.enter_context(opened)
        after = counted(rollouts.groups(), "collecting", total=rollouts.num_rows, size=len)
        if options.against is None:
            yield from (Group(rows=rows) for rows in after)
            return
        before = stack.enter_context(open_rollouts(options.against)).groups()
        for pairs in paired_groups(before, after):
            yield Group(rows=[new for _, new in pairs], before=[old for old, _ in pairs])


def _tally(summary: Summary, record: Record, options: ReportOptions) -> None:
    summary.num_rows += 1
    summary.num_rewarded += record.reward is not None
    summary.num_dropped += record.reward is None and bool(record.dropped_because)
    label = find_label(record, options.label)
    for name, score in record.components.items():
        if score.value is None and "not_run" not in score.details:  # by a gate or the routing
            summary.failed.setdefault(name, Counter())[score.outcome] += 1
        if score.value is not None and label is not None:
            counts = summary.labels.setdefault(name, [0, 0, 0, 0])
            counts[2 * (score.value < 0.5) + (not label)] += 1
