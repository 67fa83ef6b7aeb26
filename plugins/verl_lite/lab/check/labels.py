"""How well do components agree with labels? Confusion, intervals, slices, thresholds, calibration."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from verl_lite.errors import DataError
from verl_lite.lab.check.findings import Finding, Level
from verl_lite.lab.statistics import Confusion, calibration_error, cohen_kappa
from verl_lite.plugins import Rollout, ScoredRollout

THRESHOLD = 0.5  # this score and above counts as "correct"
_TRUE = frozenset({"true", "yes", "1", "correct", "1.0"})
_FALSE = frozenset({"false", "no", "0", "wrong", "incorrect", "0.0"})


def read_label(rollout: Rollout, column: str) -> bool:
    """The row's label as a bool. Raises DataError for a missing column or an unclear value."""
    columns = rollout.columns
    if column not in columns:
        known = ", ".join(sorted(columns)) or "none"
        raise DataError(f"rollout {rollout.id!r} has no label column {column!r}; its columns: {known}")
    label = truth(columns[column])
    if label is None:
        raise DataError(f"rollout {rollout.id!r}: {column!r} is {columns[column]!r}, neither true nor false")
    return label


def truth(value: object) -> bool | None:
    """A label in any usual spelling as a bool; None for anything else."""
    text = str(value).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    id: str
    score: float
    label: bool
    reason: str
    reference: str | None
    completion: str


@dataclass(slots=True)
class LabelTally:
    """(score, label) pairs of one component, overall and by slice (data source, answer type)."""

    ids: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    slices: dict[str, list[tuple[bool, bool]]] = field(default_factory=lambda: defaultdict(list))
    num_without_value: int = 0
    disagreements: list[Disagreement] = field(default_factory=list)

    def add(self, row: ScoredRollout, name: str, label: bool, slice_columns: tuple[str, ...]) -> None:
        score, rollout = row.components[name].score, row.rollout
        if score.value is None:
            self.num_without_value += 1
            return
        decision = score.value >= THRESHOLD
        self.ids.append(rollout.id)
        self.scores.append(score.value)
        self.labels.append(label)
        for column in slice_columns:
            if column in rollout.columns:
                self.slices[f"{column}={rollout.columns[column]}"].append((decision, label))
        matched = score.details.get("matched_by") or score.details.get("kind")
        if matched:
            self.slices[f"matched_by={matched}"].append((decision, label))
        if decision is not label:
            self.disagreements.append(
                Disagreement(
                    id=rollout.id,
                    score=score.value,
                    label=label,
                    reason=score.reason,
                    reference=rollout.reference,
                    completion=rollout.completion,
                )
            )

    def confusion(self, threshold: float = THRESHOLD) -> Confusion:
        return Confusion.count([(s >= threshold, y) for s, y in zip(self.scores, self.labels, strict=True)])

    def threshold_sweep(self, num_points: int = 19) -> list[dict[str, float | None]]:
        """Precision, recall and F1 at equally spaced thresholds between the smallest and largest score."""
        low, high = min(self.scores), max(self.scores)
        rows: list[dict[str, float | None]] = []
        for index in range(1, num_points + 1):
            threshold = low + (high - low) * index / (num_points + 1)
            c = self.confusion(threshold)
            rows.append({"threshold": threshold, "precision": c.precision, "recall": c.recall, "f1": c.f1})
        return rows


def label_findings(tallies: Mapping[str, LabelTally], primary: str) -> Iterator[Finding]:
    """Agreement of the `primary` component and of every other verdict (a component of zeros and ones).

    A graded component (a length, a learned reward) gets a threshold sweep instead.
    """
    verdicts: dict[str, LabelTally] = {}
    for name, tally in tallies.items():
        if not tally.scores:
            if name == primary:
                message = f"{name} has no value on any labelled row"
                yield Finding("labels", Level.FAIL, message)
            continue
        is_graded = any(score not in (0.0, 1.0) for score in tally.scores)
        if name == primary or not is_graded:
            verdicts[name] = tally
            yield _agreement(name, tally)
        if is_graded:
            yield _graded(name, tally)
    names = list(verdicts)
    for i, first in enumerate(names):
        for second in names[:i]:
            yield from _kappa(second, verdicts[second], first, verdicts[first])


def _agreement(name: str, tally: LabelTally) -> Finding:
    confusion = tally.confusion()
    numbers: dict[str, object] = {
        **_confusion_json(confusion),
        "num_without_value": tally.num_without_value,
        "slices": {
            key: _confusion_json(Confusion.count(pairs)) for key, pairs in sorted(tally.slices.items())
        },
        "disagreements": tally.disagreements,
    }
    wrong = confusion.false_positive + confusion.false_negative
    return Finding(
        "labels",
        Level.WARN if wrong else Level.OK,
        f"{name} against the label on {confusion.total:,} rows: "
        f"{confusion.false_positive:,} false positives, {confusion.false_negative:,} false negatives; "
        f"precision {_percent(confusion.precision, confusion.precision_interval)}, "
        f"recall {_percent(confusion.recall, confusion.recall_interval)}",
        numbers=numbers,
    )


def _percent(share: float | None, interval: tuple[float, float]) -> str:
    if share is None:
        return "undefined"
    return f"{share:.2%} (95%: {interval[0]:.2%} to {interval[1]:.2%})"


def _confusion_json(confusion: Confusion) -> dict[str, object]:
    return {
        **asdict(confusion),
        "precision": confusion.precision,
        "precision_95": confusion.precision_interval,
        "recall": confusion.recall,
        "recall_95": confusion.recall_interval,
        "f1": confusion.f1,
        "accuracy": confusion.accuracy,
    }


def _graded(name: str, tally: LabelTally) -> Finding:
    sweep = tally.threshold_sweep()
    best = max(sweep, key=lambda point: point["f1"] or 0.0)
    error = calibration_error(tally.scores, tally.labels)
    text = f"{name} is graded: best F1 {best['f1'] or 0.0:.3f} at threshold {best['threshold']:.3f}"
    text += f", calibration error {error:.3f}" if error is not None else ", scores are not probabilities"
    return Finding(
        "thresholds",
        Level.NOTE,
        text,
        {"sweep": sweep, "calibration_error": error},
    )


def _kappa(name: str, tally: LabelTally, other_name: str, other: LabelTally) -> Iterator[Finding]:
    known = dict(zip(tally.ids, tally.scores, strict=True))
    pairs = [
        (known[row_id] >= THRESHOLD, score >= THRESHOLD)
        for row_id, score in zip(other.ids, other.scores, strict=True)
        if row_id in known
    ]
    kappa = cohen_kappa(pairs)
    if kappa is not None:
        yield Finding(
            "agreement",
            Level.NOTE,
            f"{name} and {other_name} agree with kappa {kappa:.3f}",
            {"kappa": kappa},
        )
