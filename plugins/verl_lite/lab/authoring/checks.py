"""`verl-lite plugins check`: whether a reward keeps the contract, as findings like those of `check`."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verl_lite.errors import PluginError
from verl_lite.lab.authoring.describe import undocumented_options
from verl_lite.lab.authoring.passes import Passes, run_passes
from verl_lite.lab.authoring.subjects import Subject, find_golden_files, odd_rollouts, subjects_of
from verl_lite.lab.check import Finding, Level
from verl_lite.lab.golden import compare_golden, read_golden
from verl_lite.plugins import RewardCatalog, RewardDefinition, Score, ScoreOutcome, find_rewards
from verl_lite.plugins.execution.calls import breaks_contract
from verl_lite.plugins.progress import counted

TOLERANCE = 1e-6  # between two passes: a model's batches differ by rounding
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

    def to_json(self) -> dict[str, Any]:
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
        findings.append(Finding(check="pickling", level=Level.FAIL, message=str(error)))
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
        return Finding(check="docstring", level=Level.OK, message="it says what it rewards")
    message = "it has no docstring: users see nothing in `verl-lite plugins list`"
    return Finding(check="docstring", level=Level.WARN, message=message)


def _options(definition: RewardDefinition) -> Finding:
    bare = list(undocumented_options(definition.options_model, definition.call))
    if bare:
        message = (
            f"not documented: {', '.join(bare)}; give Field(description=...) or name them in the docstring"
        )
        return Finding(check="options", level=Level.WARN, message=message, numbers={"undocumented": bare})
    count = len(definition.options_model.model_fields)
    message = f"{count} documented" if count else "it takes none"
    return Finding(check="options", level=Level.OK, message=message)


def _golden(files: Sequence[Path]) -> Finding:
    if not files:
        message = (
            "no golden file uses it: pin scores with "
            "`verl-lite score ROLLOUTS -c REWARDS.yaml --golden NAME.golden.json`"
        )
        return Finding(check="golden", level=Level.WARN, message=message)
    mismatches = [f"{path.name}, {mismatch}" for path in files for mismatch in compare_golden(path)]
    rows = [row for path in files for row in read_golden(path).rows]
    if mismatches:
        message = f"{len(mismatches)} of {len(rows)} rows are not as pinned; {_first(mismatches)}"
        return Finding(check="golden", level=Level.FAIL, message=message, numbers={"mismatches": mismatches})
    if len({row.reward for row in rows}) < 2:
        message = f"all {len(rows)} pinned rows have the reward {rows[0].reward}: a constant would pass too"
        return Finding(check="golden", level=Level.WARN, message=message)
    return Finding(check="golden", level=Level.OK, message=f"{len(rows)} rows are as pinned")


def _pickling(definition: RewardDefinition, subjects: Sequence[Subject]) -> Finding:
    """Whether the reward reached a worker process; only one that must run there can fail."""
    reasons = [subject.stays_because for subject in subjects if subject.stays_because]
    if not reasons:
        message = "the reward and its options reach a worker process"
        return Finding(check="pickling", level=Level.OK, message=message)
    level = Level.FAIL if definition.isolate else Level.NOTE
    return Finding(check="pickling", level=level, message=reasons[0])


def _contract(checked: Checked) -> Finding:
    """Whether every call returned what the contract allows: one answer per rollout, of the right type."""
    broken = [
        f"{rollout.id}: {score.reason}"
        for subject, passes in checked
        for rollouts, scores in [(subject.rollouts, passes.first), (odd_rollouts(subject), passes.odd)]
        for rollout, score in zip(rollouts, scores, strict=True)
        if breaks_contract(score)
    ]
    if broken:
        message = f"it returned what no reward may return for {len(broken)} rollouts; {broken[0]}"
        return Finding(check="contract", level=Level.FAIL, message=message, numbers={"broken": broken})
    return Finding(check="contract", level=Level.OK, message="one answer per rollout, of the right type")


def _answers(checked: Checked) -> Finding:
    """Our samples may lack what the reward reads, so this only warns; golden files pin their errors."""
    scores = [score for subject, passes in checked if subject.golden is None for score in passes.first]
    failed = [score for score in scores if score.outcome in (ScoreOutcome.ERROR, ScoreOutcome.TIMEOUT)]
    if not failed:
        outcomes = [score.outcome for _, passes in checked for score in passes.first]
        message = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in ScoreOutcome if kind in outcomes)
        return Finding(check="answers", level=Level.OK, message=message)
    message = (
        f"{len(failed)} of {len(scores)} plain rollouts failed: {failed[0].outcome}: {failed[0].reason}; "
        "if they lack what the reward reads, check it on your own with --golden"
    )
    return Finding(check="answers", level=Level.WARN, message=message)


def _odd_input(checked: Checked) -> Finding:
    failed = [
        f"{rollout.id}: {score.outcome}: {score.reason}"
        for subject, passes in checked
        for rollout, score in zip(odd_rollouts(subject), passes.odd, strict=True)
        if score.outcome in (ScoreOutcome.ERROR, ScoreOutcome.TIMEOUT)
    ]
    total = sum(len(passes.odd) for _, passes in checked)
    if failed:
        message = f"{len(failed)} of {total} odd completions failed; {_first(failed)}"
        return Finding(check="odd input", level=Level.WARN, message=message, numbers={"failed": failed})
    return Finding(check="odd input", level=Level.OK, message=f"{total} odd completions have answers")


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
        message = f"scores change {when}; {_first(moved)}"
        return Finding(check=check, level=Level.FAIL, message=message, numbers={"moved": moved})
    return Finding(check=check, level=Level.OK, message=f"scores are the same {when}")


def _batch_size(definition: RewardDefinition, checked: Checked) -> Finding:
    if definition.form != "batch":
        what = "rollout" if definition.form == "rollout" else "group"
        message = f"every {what} is scored by itself"
        return Finding(check="batch size", level=Level.OK, message=message)
    return _same("batch size", checked, ("in_ones",), "when each is its own batch")


def _deadline(checked: Checked) -> Finding:
    """The p99 of a call's latency against its deadline."""
    worst = max(checked, key=lambda pair: _p99_s(pair[1]) / pair[0].component.timeout_s)
    timeout_s, p99_s = worst[0].component.timeout_s, _p99_s(worst[1])
    message = f"p99 of a call {p99_s * 1e3:.3g} ms, deadline {timeout_s:g} s"
    numbers = {"p99_s": p99_s, "timeout_s": timeout_s, "calls": len(worst[1].call_latencies_s)}
    late = [score for _, passes in checked for score in passes.first if score.outcome is ScoreOutcome.TIMEOUT]
    if late or p99_s > timeout_s:
        message += f"; {len(late)} rollouts ran out of time"
        return Finding(check="deadline", level=Level.FAIL, message=message, numbers=numbers)
    level = Level.WARN if p99_s > timeout_s / 2 else Level.OK
    return Finding(check="deadline", level=level, message=message, numbers=numbers)


def _p99_s(passes: Passes) -> float:
    ordered = sorted(passes.call_latencies_s)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]


def _purity(checked: Checked) -> Finding:
    seen = [passes.impurities for _, passes in checked]
    changed = sorted({name for found in seen for name in found.changed})
    called = sorted({name for found in seen for name in found.called})
    if changed:
        message = f"it changes its input: {', '.join(changed)}"
        return Finding(check="purity", level=Level.FAIL, message=message, numbers={"changed": changed})
    if called:
        message = f"it reads what differs from run to run: {', '.join(called)}"
        return Finding(check="purity", level=Level.WARN, message=message, numbers={"called": called})
    blind = [found.not_watched for found in seen if found.not_watched]
    if blind:
        return Finding(check="purity", level=Level.NOTE, message=f"not watched: {blind[0]}")
    message = "it leaves its input alone, reads no clock and draws no random numbers"
    return Finding(check="purity", level=Level.OK, message=message)


def _equal(one: Score, other: Score) -> bool:
    if one.value is None or other.value is None:
        return one.outcome is other.outcome
    return math.isclose(one.value, other.value, rel_tol=0.0, abs_tol=TOLERANCE)


def _shown(score: Score) -> str:
    return score.outcome.value if score.value is None else f"{score.value:g}"


def _first(examples: Sequence[str]) -> str:
    more = len(examples) - _MAX_EXAMPLES
    return "; ".join(examples[:_MAX_EXAMPLES]) + (f"; and {more} more" if more > 0 else "")
