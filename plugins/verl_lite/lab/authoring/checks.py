"""`verl-lite plugins check`: whether a reward keeps the contract, as findings like those of `check`."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from verl_lite.errors import PluginError
from verl_lite.lab.authoring.describe import undocumented_options
from verl_lite.lab.authoring.passes import Passes, run_passes
from verl_lite.lab.authoring.subjects import Subject, find_golden_files, odd_rollouts, subjects_of
from verl_lite.lab.check import Finding, Level
from verl_lite.lab.golden import compare_golden, read_golden
from verl_lite.plugins import RewardCatalog, RewardDefinition, Rollout, Score, ScoreOutcome, find_rewards
from verl_lite.plugins.execution.calls import breaks_contract
from verl_lite.plugins.progress import counted

TOLERANCE = 1e-6  # between two passes: a model's batches differ by rounding
FAILED = (ScoreOutcome.ERROR, ScoreOutcome.TIMEOUT)
_MAX_EXAMPLES = 3

Checked = Sequence[tuple[Subject, Passes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginReport:
    """`rollouts` counts the different rollouts the reward was tried on, without the odd ones."""

    reward: str
    distribution: str
    num_rollouts: int
    golden_files: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        return any(finding.level is Level.FAIL for finding in self.findings)

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "failed": self.failed}


def check_plugin(
    use: str, *, golden: Path | None = None, folder: Path | None = None, catalog: RewardCatalog | None = None
) -> PluginReport:
    """Check the reward that `use` names (a registered name, ./file.py:function, package.module:function).

    It is checked on `golden`, or on every golden file below `folder` (the working folder) that uses it.
    Raises PluginError for a reward that is not there, ConfigError for golden files that do not fit.
    """
    catalog = catalog or find_rewards()
    definition = catalog.get(use)
    files = [golden] if golden else find_golden_files(definition, catalog, folder or Path())
    subjects = subjects_of(definition, catalog, files)
    findings = [_docstring(definition), _options(definition), _golden(files)]
    try:
        watched = counted(subjects, "checking", total=len(subjects))
        checked = [(subject, run_passes(subject)) for subject in watched]
    except PluginError as error:  # the worker process could not load the reward
        findings.append(Finding("pickling", Level.FAIL, str(error)))
    else:
        findings += [
            _pickling(definition, subjects),
            _contract(checked),
            _answers(checked),
            _odd_input(checked),
            _same("determinism", checked, ("again", "elsewhere"), "when they are scored again"),
            _same("order", checked, ("backwards",), "when they come in another order"),
            _batch_size(definition, checked),
            _deadline(checked),
            _purity(checked),
        ]
    return PluginReport(
        reward=definition.name,
        distribution=definition.distribution,
        num_rollouts=sum(len(subject.rollouts) for subject in subjects),
        golden_files=tuple(map(str, files)),
        findings=tuple(findings),
    )


def _docstring(definition: RewardDefinition) -> Finding:
    if definition.summary:
        return Finding("docstring", Level.OK, "it says what it rewards")
    return Finding(
        "docstring", Level.WARN, "it has no docstring: users see nothing in `verl-lite plugins list`"
    )


def _options(definition: RewardDefinition) -> Finding:
    bare = list(undocumented_options(definition.options_model, definition.call))
    if bare:
        message = (
            f"not documented: {', '.join(bare)}; give Field(description=...) or name them in the docstring"
        )
        return Finding("options", Level.WARN, message, {"undocumented": bare})
    count = len(definition.options_model.model_fields)
    return Finding("options", Level.OK, f"{count} documented" if count else "it takes none")


def _golden(files: Sequence[Path]) -> Finding:
    if not files:
        message = (
            "no golden file uses it: pin scores with "
            "`verl-lite score ROLLOUTS -c REWARDS.yaml --golden NAME.golden.json`"
        )
        return Finding("golden", Level.WARN, message)
    mismatches = [f"{path.name}, {mismatch}" for path in files for mismatch in compare_golden(path)]
    rows = [row for path in files for row in read_golden(path).rows]
    if mismatches:
        message = f"{len(mismatches)} of {len(rows)} rows are not as pinned; {_first(mismatches)}"
        return Finding("golden", Level.FAIL, message, {"mismatches": mismatches})
    if len({row.reward for row in rows}) < 2:
        message = f"all {len(rows)} pinned rows have the reward {rows[0].reward}: a constant would pass too"
        return Finding("golden", Level.WARN, message)
    return Finding("golden", Level.OK, f"{len(rows)} rows are as pinned")


def _pickling(definition: RewardDefinition, subjects: Sequence[Subject]) -> Finding:
    """Whether the reward reached a worker process; only one that must run there can fail."""
    reasons = [subject.stays_because for subject in subjects if subject.stays_because]
    if not reasons:
        return Finding("pickling", Level.OK, "the reward and its options reach a worker process")
    return Finding("pickling", Level.FAIL if definition.isolate else Level.NOTE, reasons[0])


def _scores(checked: Checked) -> Iterator[tuple[Rollout, Score]]:
    """Each rollout with its score in the first pass."""
    for subject, passes in checked:
        yield from zip(subject.rollouts, passes.first, strict=True)


def _odd_scores(checked: Checked) -> Iterator[tuple[Rollout, Score]]:
    for subject, passes in checked:
        yield from zip(odd_rollouts(subject), passes.odd, strict=True)


def _contract(checked: Checked) -> Finding:
    """Whether every call returned what the contract allows: one answer per rollout, of the right type."""
    scores = [*_scores(checked), *_odd_scores(checked)]
    broken = [f"{rollout.id}: {score.reason}" for rollout, score in scores if breaks_contract(score)]
    if broken:
        message = f"it returned what no reward may return for {len(broken)} rollouts; {broken[0]}"
        return Finding("contract", Level.FAIL, message, {"broken": broken})
    return Finding("contract", Level.OK, "one answer per rollout, of the right type")


def _answers(checked: Checked) -> Finding:
    """Our samples may lack what the reward reads, so this only warns; golden files pin their errors."""
    scores = [score for _, score in _scores([pair for pair in checked if pair[0].golden is None])]
    failed = [score for score in scores if score.outcome in FAILED]
    if not failed:
        outcomes = [score.outcome for _, score in _scores(checked)]
        counts = (f"{outcomes.count(kind)} {kind}" for kind in ScoreOutcome if kind in outcomes)
        return Finding("answers", Level.OK, ", ".join(counts))
    message = (
        f"{len(failed)} of {len(scores)} plain rollouts failed: {failed[0].outcome}: {failed[0].reason}; "
        "if they lack what the reward reads, check it on your own with --golden"
    )
    return Finding("answers", Level.WARN, message)


def _odd_input(checked: Checked) -> Finding:
    scores = list(_odd_scores(checked))
    failed = [
        f"{row.id}: {score.outcome}: {score.reason}" for row, score in scores if score.outcome in FAILED
    ]
    if failed:
        message = f"{len(failed)} of {len(scores)} odd completions failed; {_first(failed)}"
        return Finding("odd input", Level.WARN, message, {"failed": failed})
    return Finding("odd input", Level.OK, f"{len(scores)} odd completions have answers")


def _same(check: str, checked: Checked, passes_names: Sequence[str], when: str) -> Finding:
    """Whether the named passes gave the scores of the first pass."""
    moved = [
        f"{rollout.id}: {_shown(one)}, then {_shown(other)}"
        for subject, passes in checked
        for name in passes_names
        for rollout, one, other in zip(subject.rollouts, passes.first, getattr(passes, name), strict=True)
        if not _equal(one, other)
    ]
    if moved:
        return Finding(check, Level.FAIL, f"scores change {when}; {_first(moved)}", {"moved": moved})
    return Finding(check, Level.OK, f"scores are the same {when}")


def _batch_size(definition: RewardDefinition, checked: Checked) -> Finding:
    if definition.form != "batch":
        return Finding("batch size", Level.OK, f"every {definition.form} is scored by itself")
    return _same("batch size", checked, ("in_ones",), "when each is its own batch")


def _deadline(checked: Checked) -> Finding:
    """The p99 of a call's latency against its deadline."""
    worst = max(checked, key=lambda pair: _p99_s(pair[1]) / pair[0].component.timeout_s)
    timeout_s, p99_s = worst[0].component.timeout_s, _p99_s(worst[1])
    message = f"p99 of a call {p99_s * 1e3:.3g} ms, deadline {timeout_s:g} s"
    numbers = {"p99_s": p99_s, "timeout_s": timeout_s, "calls": len(worst[1].call_latencies_s)}
    late = sum(score.outcome is ScoreOutcome.TIMEOUT for _, score in _scores(checked))
    if late or p99_s > timeout_s:
        return Finding("deadline", Level.FAIL, f"{message}; {late} rollouts ran out of time", numbers)
    return Finding("deadline", Level.WARN if p99_s > timeout_s / 2 else Level.OK, message, numbers)


def _p99_s(passes: Passes) -> float:
    ordered = sorted(passes.call_latencies_s)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]


def _purity(checked: Checked) -> Finding:
    seen = [passes.impurities for _, passes in checked]
    changed = sorted({name for found in seen for name in found.changed})
    called = sorted({name for found in seen for name in found.called})
    if changed:
        message = f"it changes its input: {', '.join(changed)}"
        return Finding("purity", Level.FAIL, message, {"changed": changed})
    if called:
        message = f"it reads what differs from run to run: {', '.join(called)}"
        return Finding("purity", Level.WARN, message, {"called": called})
    blind = [found.not_watched for found in seen if found.not_watched]
    if blind:
        return Finding("purity", Level.NOTE, f"not watched: {blind[0]}")
    return Finding(
        "purity", Level.OK, "it leaves its input alone, reads no clock and draws no random numbers"
    )


def _equal(one: Score, other: Score) -> bool:
    if one.value is None or other.value is None:
        return one.outcome is other.outcome
    return math.isclose(one.value, other.value, rel_tol=0.0, abs_tol=TOLERANCE)


def _shown(score: Score) -> str:
    return score.outcome.value if score.value is None else f"{score.value:g}"


def _first(examples: Sequence[str]) -> str:
    more = len(examples) - _MAX_EXAMPLES
    return "; ".join(examples[:_MAX_EXAMPLES]) + (f"; and {more} more" if more > 0 else "")
