"""The one path by which rollouts get rewards: training, evaluation and offline scoring all use it."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

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
from verl_lite.plugins.execution import Execution
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import ScoredBatch, ScoredRollout

__all__ = ["Scorer", "ScoringSession"]


class Scorer:
    """Scores rollouts with the rewards of a config. Use as a context manager: it owns worker processes.

    workers        processes for isolated rewards; None chooses by the machine
    debug_inline   run everything in this process, so that breakpoints hit (deadlines do not)
    catalog        the installed rewards; found when not given
    decode         token ids to text, for process rewards at character positions (composite/steps.py)
    failures_path  where the rows go that made scoring stop (.jsonl or .parquet)
    Raises PluginError for rewards that are not there, ConfigError for options that do not fit.
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
    ) -> None:
        self.config = config
        self._composite = build_composite(config, catalog or find_rewards())
        self._decode = decode
        self._breaker = CircuitBreaker(config.scoring, Path(failures_path) if failures_path else None)
        self._execution = Execution(self._composite.components, workers=workers, debug_inline=debug_inline)

    def __enter__(self) -> "Scorer":
        self._execution.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._execution.__exit__(kind, error, trace)

    @property
    def components(self) -> tuple[Component, ...]:
        """What is run, in the order of the config."""
        return self._composite.components

    def score(self, rollouts: Sequence[Rollout], *, step: int = 0) -> ScoredBatch:
        """Score `rollouts` at training step `step`; see ScoringSession.finish for what is raised."""
        session = self.start(step=step)
        session.add(rollouts)
        return session.finish()

    def start(self, *, step: int = 0) -> "ScoringSession":
        """Begin a pass whose rollouts come in pieces, so that scoring overlaps generation."""
        return ScoringSession(self, step)

    def environment(self) -> dict[str, dict[str, str]]:
        """Where each component's reward comes from, its version and the hash of its code."""
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

    def add(self, rollouts: Sequence[Rollout]) -> None:
        """Hand over rollouts; their scoring starts at once. Raises DataError for a source nobody takes."""
        self._scorer._composite.check_sources(rollouts)
        self._rollouts += rollouts
        self._run.add(rollouts)

    def finish(self) -> ScoredBatch:
        """Wait for every score; rows stand in the order in which their rollouts were added.

        Raises RewardError, with the failing rows saved, where a policy is `abort` or a reward fails
        on more rollouts than `scoring` allows.
        """
        rows: list[ScoredRollout] = []
        aborting = ""
        for rollout, timed in zip(self._rollouts, self._run.finish(), strict=True):
            row, aborted_by = self._combiner.combine(rollout, timed)
            rows.append(row)
            aborting = aborting or aborted_by
        self._scorer._breaker.check(rows, self._combiner.has_effect(), aborting)
        stats = self._run.stats()
        metrics = batch_metrics(rows, combine=self._scorer.config.scoring.combine) | stats.metrics()
        slowest = {name: part.slowest for name, part in stats.components.items()}
        return ScoredBatch(rows=rows, metrics=metrics, slowest=slowest)

    def cancel(self) -> None:
        """Give the pass up; what was not begun is dropped."""
        self._run.cancel()
