"""The one way to score rollouts: training, evaluation and offline scoring all use it."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from verl_lite.errors import RewardError
from verl_lite.plugins.composite import (
    CircuitBreaker,
    Combiner,
    Decode,
    RewardsConfig,
    batch_metrics,
    build_composite,
)
from verl_lite.plugins.contract import Component
from verl_lite.plugins.discovery import RewardCatalog, content_hash, find_rewards
from verl_lite.plugins.execution import Execution, Placement, TimedScore
from verl_lite.plugins.paths import map_rollout
from verl_lite.plugins.progress import Advance
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoredBatch, ScoredRollout


class Scorer:
    """Scores rollouts with the rewards of a config. Use as a context manager: it owns worker processes.

    workers        processes for isolated rewards; None for as many as suit the machine
    debug_inline   run everything in this process, so that breakpoints hit (deadlines do not)
    catalog        the installed rewards; by default those of find_rewards()
    decode         token ids to text, for process rewards at character positions
    placement      runs rewards on other machines; by default all run on this one
    failures_path  the file for the rows that made scoring stop (.jsonl or .parquet)
    Raises PluginError for missing rewards, ConfigError for options that do not fit.
    """

    def __init__(
        self,
        config: RewardsConfig,
        *,
        workers: int | None = None,
        debug_inline: bool = False,
        catalog: RewardCatalog | None = None,
        decode: Decode | None = None,
        failures_path: str | Path | None = None,
        placement: Placement | None = None,
    ) -> None:
        self.config = config
        self._composite = build_composite(config, catalog or find_rewards())
        self._decode = decode
        self._breaker = CircuitBreaker(config.scoring, Path(failures_path) if failures_path else None)
        self._execution = Execution(
            self._composite.components, workers=workers, debug_inline=debug_inline, placement=placement
        )
        self._is_open = False

    def __enter__(self) -> "Scorer":
        self._execution.__enter__()
        self._is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._execution.close()

    @property
    def components(self) -> tuple[Component, ...]:
        """The components to run, in the order of the config."""
        return self._composite.components

    def score(
        self, rollouts: Sequence[Rollout], *, step: int = 0, known: Sequence[Mapping[str, Score]] = ()
    ) -> ScoredBatch:
        """Score `rollouts` at training step `step`; see ScoringSession.finish for what is raised.

        `known` has, per rollout, the scores by component name that need not be computed again.
        """
        session = self.start(step=step)
        session.add(rollouts, known)
        return session.finish()

    def score_rows(
        self,
        rollouts: Sequence[Rollout],
        *,
        step: int = 0,
        known: Sequence[Mapping[str, Score]] = (),
        advance: Advance = lambda _: None,
    ) -> list[ScoredRollout]:
        """The rows of `score` without the metrics, for callers that keep their own tallies.

        `advance` is called with how many more rollouts are scored.
        """
        session = self.start(step=step)
        session.add(rollouts, known)
        return session.finish_rows(advance)

    def start(self, *, step: int = 0) -> "ScoringSession":
        """Begin a pass whose rollouts arrive in pieces, so that scoring overlaps generation."""
        if not self._is_open:
            raise RewardError("the scorer is not open: use `with Scorer(config) as scorer:`")
        return ScoringSession(self, step)

    def environment(self) -> dict[str, dict[str, str]]:
        """Each component's reward: its distribution, version and the hash of its code."""
        return {
            component.name: {
                "reward": component.definition.name,
                "distribution": component.definition.distribution,
                "version": component.definition.version,
                "content_hash": content_hash(component.definition.call.__module__),
            }
            for component in self.components
        }


class ScoringSession:
    """One pass. Add whole groups (all samples of a prompt together) when a reward compares them."""

    def __init__(self, scorer: Scorer, step: int) -> None:
        self._scorer = scorer
        self._combiner = Combiner(scorer._composite, step=step, decode=scorer._decode)
        self._run = scorer._execution.start()
        self._rollouts: list[Rollout] = []

    def add(self, rollouts: Sequence[Rollout], known: Sequence[Mapping[str, Score]] = ()) -> None:
        """Add rollouts; their scoring starts at once. `known` as in Scorer.score.

        Raises DataError for a rollout whose data source no component takes.
        """
        if self._scorer.config.map:
            rollouts = [map_rollout(rollout, self._scorer.config.map) for rollout in rollouts]
        self._scorer._composite.check_sources(rollouts)
        self._rollouts += rollouts
        self._run.add(rollouts, known)

    def finish(self) -> ScoredBatch:
        """Wait for every score; rows are in the order in which their rollouts were added.

        Saves the failing rows and raises RewardError if a failed row's policy is `abort` or a reward
        fails on more rollouts than `scoring` allows.
        """
        rows = self.finish_rows()
        with _collector_paused():
            metrics = batch_metrics(rows, combine=self._scorer.config.scoring.combine)
        stats = self._run.stats()
        slowest = {name: part.slowest for name, part in stats.components.items()}
        return ScoredBatch(rows=rows, metrics=metrics | stats.metrics(), slowest=slowest)

    def finish_rows(self, advance: Advance = lambda _: None) -> list[ScoredRollout]:
        """Like `finish`, without the metrics."""
        timed_rows = self._run.finish(advance)
        with _collector_paused():
            rows, aborting = self._combined(timed_rows)
            self._scorer._breaker.check(rows, self._combiner.has_effect(), aborting)
        return rows

    def cancel(self) -> None:
        """Abandon the pass; calls that have not started are dropped."""
        self._run.cancel()

    def _combined(self, timed_rows: Sequence[Mapping[str, TimedScore]]) -> tuple[list[ScoredRollout], str]:
        """The scored rows, and the first component whose policy demands an abort ("" for none)."""
        rows: list[ScoredRollout] = []
        aborting = ""
        for rollout, timed in zip(self._rollouts, timed_rows, strict=True):
            row, aborted_by = self._combiner.combine(rollout, timed)
            rows.append(row)
            aborting = aborting or aborted_by
        return rows, aborting


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause garbage collection: the many rows made here all stay alive and would be visited repeatedly."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
