"""Stop scoring under an `abort` policy or by the circuit breaker, and save the failing rows."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from verl_lite.errors import RewardError
from verl_lite.plugins.composite.config import ScoringConfig
from verl_lite.plugins.records import RecordWriter
from verl_lite.plugins.score import Score, ScoredRollout, ScoreOutcome

MAX_SAVED_ROWS = 1000


def was_run(score: Score) -> bool:
    """False if a gate or the routing skipped the component."""
    return "not_run" not in score.details


class CircuitBreaker:
    """Stops a run whose rewards fail, instead of training on the rest.

    Failures are counted per component, over the rollouts it ran on. Batches are added up to at least
    `breaker_min_rows` rollouts; then the fractions are checked and the counts reset. Components that
    cannot affect the reward are not counted.
    """

    def __init__(self, scoring: ScoringConfig, failures_path: Path | None = None) -> None:
        self._scoring = scoring
        self._path = failures_path
        self._counts: dict[str, dict[str, int]] = {}
        self._failing: dict[str, list[ScoredRollout]] = {}

    def check(self, rows: Sequence[ScoredRollout], components: Iterable[str], aborting: str = "") -> None:
        """Count `rows`; raise RewardError if a limit is exceeded or `aborting` names a component."""
        for path in components:
            self._count(path, rows)
        if aborting:
            failing = self._failing[aborting]
            outcome = failing[0].components[aborting].score.outcome
            raise RewardError(self._report(aborting, f"its policy is on_{outcome}: abort", failing))
        for path, counts in self._counts.items():
            if counts["run"] < self._scoring.breaker_min_rows:
                continue
            for outcome, limit in self._limits():
                if counts[outcome] > limit * counts["run"]:
                    name = f"scoring.max_{outcome}_fraction={limit:g}"
                    what = (
                        f"{counts[outcome]} of {counts['run']} rollouts ended in {outcome}, more than {name}"
                    )
                    raise RewardError(self._report(path, what, self._failing[path]))
            counts.update(run=0, error=0, timeout=0)
            self._failing[path].clear()

    def _limits(self) -> list[tuple[ScoreOutcome, float]]:
        return [
            (ScoreOutcome.ERROR, self._scoring.max_error_fraction),
            (ScoreOutcome.TIMEOUT, self._scoring.max_timeout_fraction),
        ]

    def _count(self, path: str, rows: Sequence[ScoredRollout]) -> None:
        counts = self._counts.setdefault(path, {"run": 0, "error": 0, "timeout": 0})
        failing = self._failing.setdefault(path, [])
        num_run = len(rows)
        for row in rows:
            score = row.components[path].score
            if score.value is not None:
                continue
            if score.outcome is ScoreOutcome.ABSTAIN:
                num_run -= not was_run(score)
                continue
            counts[score.outcome] += 1
            if len(failing) < MAX_SAVED_ROWS:
                failing.append(row)
        counts["run"] += num_run

    def _report(self, path: str, what: str, failing: Sequence[ScoredRollout]) -> str:
        saved = self._save(failing)
        first = failing[0]
        score = first.components[path].score
        return (
            f"scoring stopped: reward {path!r}: {what}. The first is rollout {first.rollout.id!r} "
            f"(group {first.rollout.group!r}): {score.reason or score.outcome}. "
            f"The {len(failing)} failing rows are in {saved}: fix the reward and score that file again, "
            "or change the policy under `scoring:`"
        )

    def _save(self, failing: Sequence[ScoredRollout]) -> Path:
        path = self._path or Path(tempfile.gettempdir()) / f"verl-lite-failing-rollouts-{os.getpid()}.jsonl"
        with RecordWriter(path) as writer:
            writer.write(failing)
        return path
