"""One run: rollouts are added while others are still being generated; scores are returned in that order."""

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Protocol

from verl_lite.errors import RewardError, VerlLiteError
from verl_lite.plugins.contract import Component, applies_always
from verl_lite.plugins.execution.batcher import Call, Rows, batcher_for
from verl_lite.plugins.execution.calls import failed_score
from verl_lite.plugins.execution.component_graph import ComponentGraph
from verl_lite.plugins.execution.inline import InlineRunner
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.stats import ExecutionStats, StatsCollector
from verl_lite.plugins.progress import Advance
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome

NOT_APPLIED = TimedScore(Score(None, ScoreOutcome.ABSTAIN, "does not apply"), 0.0, 0)
NOT_SCORED = TimedScore(Score.failed(ScoreOutcome.ERROR, "not scored yet"), 0.0, 0)
CHECK_S = 0.2  # how often a waiting `finish` checks whether a runner failed


class Runner(Protocol):
    """Answers calls in the background: the worker processes, the event loop, or a thread."""

    def start(self) -> None: ...

    def submit(self, calls: Sequence[Call]) -> None: ...

    def check(self) -> None:
        """Called repeatedly while `finish` waits; raises the runner's own failure."""
        ...

    def close(self) -> None: ...


class Placement(Protocol):
    """Runs components on other machines than the trainer's."""

    def take(self, components: Mapping[int, Component], replaced: Counter[str]) -> Mapping[int, Runner]:
        """The runners of the components it takes, by index; `replaced` counts its lost workers by reason."""
        ...


class ExecutionRun:
    """Made by `Execution.start`. `add` starts the work, `finish` waits for it.

    Components in the calling thread run inside `add` and `finish`; the others run in the background.
    """

    def __init__(
        self,
        graph: ComponentGraph,
        runners: Sequence[Runner | InlineRunner],
        own: StatsCollector,
        total: StatsCollector,
    ) -> None:
        self._graph = graph
        self._runners = runners
        self._watched = {id(runner): runner for runner in runners if not isinstance(runner, InlineRunner)}
        self._own = own
        self._total = total
        self.rollouts: list[Rollout] = []
        self.cancelled = False
        self._batchers = [batcher_for(part.name, part.definition) for part in graph.components]
        self._scores: list[dict[str, TimedScore]] = []
        self._blank = dict.fromkeys((part.name for part in graph.components), NOT_SCORED)  # keeps their order
        self._known: dict[int, Mapping[str, Score]] = {}
        self._missing: dict[tuple[int, int], int] = {}  # (component, row) -> needed scores still missing
        self._unreleased = [0] * len(graph.components)
        self._unanswered = 0
        self._inline: deque[tuple[int, list[Rows]]] = deque()
        self._closing = False
        self._changed = threading.Condition()

    def add(self, rollouts: Sequence[Rollout], known: Sequence[Mapping[str, Score]] = ()) -> None:
        """Start scoring `rollouts`; all samples of a group must come in one call.

        `known` has, per rollout, scores by component name that need not be computed again (empty: none).
        They count where the component applies, with no latency and no attempt.
        Raises DataError when a component scores whole groups and a group comes in parts.
        """
        with self._changed:
            if self._closing:
                raise RewardError("rollouts were added to a run that is finished: start another one")
            rows = range(len(self.rollouts), len(self.rollouts) + len(rollouts))
            for batcher in self._batchers:
                batcher.expect(rows, rollouts)
            self.rollouts += rollouts
            self._known.update(zip(rows, known, strict=True) if known else ())
            self._scores += [self._blank.copy() for _ in rows]
            self._unanswered += len(rows) * len(self._batchers)
            ready: deque[tuple[int, Sequence[int]]] = deque()
            for component, num_needs in enumerate(self._graph.num_needs):
                if num_needs:
                    self._missing.update(((component, row), num_needs) for row in rows)
                    self._unreleased[component] += len(rows)
                else:
                    ready.append((component, rows))
            self._release(ready)
        self._run_inline()

    def finish(self, advance: Advance = lambda _: None) -> list[Mapping[str, TimedScore]]:
        """Wait for every score. Returns, per rollout in the order added, component name -> score.

        `advance` is called with how many more rollouts have theirs, on average over the components.
        """
        shown = 0
        with self._changed:
            self._closing = True
            for component in range(len(self._batchers)):
                self._flush(component)
        while True:
            self._run_inline()
            with self._changed:
                if not self._unanswered:
                    break
                if not self._inline:
                    self._changed.wait(CHECK_S)
                done = len(self.rollouts) - ceil(self._unanswered / len(self._batchers))
            advance(done - shown)
            shown = done
            self._check()
        advance(len(self.rollouts) - shown)
        self._own.add(self.rollouts, self._scores)
        self._total.merge(self._own)
        return list(self._scores)

    def cancel(self) -> None:
        """Abandon the run: calls that have not started are dropped."""
        self.cancelled = self._closing = True

    def stats(self) -> ExecutionStats:
        """The figures of this run alone, once it is finished."""
        return self._own.stats()

    def complete(self, component: int, rows: Sequence[int], scores: Sequence[TimedScore]) -> None:
        """Store scores from a runner, in whatever thread it runs."""
        with self._changed:
            if self.cancelled:
                return
            ready: deque[tuple[int, Sequence[int]]] = deque()
            self._store(component, rows, scores, ready)
            self._release(ready)
            if self._inline or not self._unanswered:
                self._changed.notify_all()

    def _check(self) -> None:
        if self.cancelled:
            raise RewardError("the run was cancelled before it was finished")
        for runner in self._watched.values():
            try:
                runner.check()
            except VerlLiteError:
                raise
            except Exception as error:
                raise RewardError(f"scoring stopped: {type(error).__name__}: {error}") from error

    def _run_inline(self) -> None:
        while self._inline:
            with self._changed:
                if not self._inline:
                    return
                component, calls = self._inline.popleft()
            runner = self._runners[component]
            assert isinstance(runner, InlineRunner)
            scores = runner.run(calls, self.rollouts)
            self.complete(component, [row for rows in calls for row in rows], scores)

    # ---- everything below is called with the lock held

    def _store(
        self,
        component: int,
        rows: Sequence[int],
        scores: Sequence[TimedScore],
        ready: deque[tuple[int, Sequence[int]]],
    ) -> None:
        """Store the scores; append to `ready` the rows that were waiting only for these."""
        name = self._graph.components[component].name
        for row, score in zip(rows, scores, strict=True):
            self._scores[row][name] = score
        self._unanswered -= len(rows)
        for dependent in self._graph.needed_by[component]:
            free = []
            for row in rows:
                self._missing[dependent, row] -= 1
                if not self._missing[dependent, row]:
                    del self._missing[dependent, row]
                    free.append(row)
            if free:
                self._unreleased[dependent] -= len(free)
                ready.append((dependent, free))

    def _release(self, ready: deque[tuple[int, Sequence[int]]]) -> None:
        while ready:
            component, rows = ready.popleft()
            batcher = self._batchers[component]
            applied, refused, scores = self._split(component, rows)
            calls = batcher.release(applied)
            if refused:
                calls += batcher.skip(refused)
                self._store(component, refused, scores, ready)
            self._send(component, calls)
            self._flush(component)

    def _split(
        self, component: int, rows: Sequence[int]
    ) -> tuple[Sequence[int], list[int], list[TimedScore]]:
        """The rows to call the reward for; the other rows; their scores."""
        part = self._graph.components[component]
        if part.applies is applies_always and not self._known:
            return rows, [], []
        applied, refused, scores = [], [], []
        for row in rows:
            score = self._score_without_call(part, row)
            if score is None:
                applied.append(row)
            else:
                refused.append(row)
                scores.append(score)
        return applied, refused, scores

    def _score_without_call(self, part: Component, row: int) -> TimedScore | None:
        """Not applied, a failed condition, or a known score; None where the reward must be called."""
        needed = {name: self._scores[row][name].score for name in part.needs}
        try:
            applies = part.applies(self.rollouts[row], needed)
        except Exception as error:  # noqa: BLE001 - the border: a condition is the user's, its failure a score
            failed = failed_score(error, "its condition failed: ", definition=part.definition)
            return TimedScore(failed, 0.0, 0)
        if not applies:
            return NOT_APPLIED
        known = self._known.get(row, {}).get(part.name)
        return None if known is None else TimedScore(known, 0.0, 0)

    def _flush(self, component: int) -> None:
        if self._closing and not self._unreleased[component]:
            self._send(component, self._batchers[component].flush())

    def _send(self, component: int, calls: list[Rows]) -> None:
        if not calls:
            return
        runner = self._runners[component]
        if isinstance(runner, InlineRunner):
            self._inline.append((component, calls))
        else:
            may_split = self._graph.components[component].definition.form == "batch"
            runner.submit([Call(self, component, rows, may_split) for rows in calls])
