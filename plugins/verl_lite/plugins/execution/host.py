"""Run components for a driver on another machine, in a reward worker of a cluster.

The runners, deadlines and kills are those of the trainer's own process, but calls arrive as bytes and
scores leave as builtins. The driver decides which rows share a call.
"""

import pickle
import threading
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from verl_lite.errors import RewardError
from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.execution_run import CHECK_S, Runner
from verl_lite.plugins.execution.inline import InlineRunner
from verl_lite.plugins.execution.limits import WorkerLimits
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.runners import make_runners
from verl_lite.plugins.execution.spec import Spec, load
from verl_lite.plugins.execution.wire import PickledRow, RowAnswer, pack_row
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome

# the answers of each call, and why worker processes were replaced since the last answer
HostAnswer: TypeAlias = tuple[list[list[RowAnswer]], dict[str, int]]


class RewardHost:
    """Holds the runners of `specs`. Raises PluginError for a reward that cannot be loaded here."""

    def __init__(self, specs: Sequence[Spec], *, workers: int) -> None:
        self._components = {at: load(spec) for at, spec in enumerate(specs)}
        self._replaced: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()
        self._lock = threading.Lock()
        made = make_runners(self._components, workers=workers, limits=WorkerLimits(), replaced=self._replaced)
        self._runners: dict[int, Runner] = {}
        for at, runner in made.items():
            if isinstance(runner, InlineRunner):
                raise RewardError("a reward of the calling thread was sent to a reward worker")
            self._runners[at] = runner
        for background in dict.fromkeys(self._runners.values()):
            background.start()

    def score(self, component: int, calls: Sequence[Sequence[PickledRow]]) -> HostAnswer:
        """The scores of every row of every call. Several threads may call this and share the runners."""
        pending = _Pending()
        for rows in calls:
            pending.add(component, rows, may_split=self._components[component].definition.form == "batch")
        runner = self._runners[component]
        runner.submit(pending.calls)
        answers = pending.wait(runner)
        with self._lock:
            replaced = self._replaced - self._reported
            self._reported += replaced
        return answers, dict(replaced)

    def close(self) -> None:
        for runner in dict.fromkeys(self._runners.values()):
            runner.close()


class _Pending:
    """The calls of one request and their scores; the runners see it as the run of an execution."""

    def __init__(self) -> None:
        self.rollouts: list[Rollout] = []
        self.cancelled = False
        self.calls: list[Call] = []
        self._rows: list[range] = []
        self._scores: list[TimedScore | None] = []
        self._missing = 0
        self._changed = threading.Condition()

    def add(self, component: int, rows: Sequence[PickledRow], *, may_split: bool) -> None:
        places = range(len(self._scores), len(self._scores) + len(rows))
        self._rows.append(places)
        try:
            self.rollouts += [pickle.loads(row) for row in rows]
        except Exception as error:  # noqa: BLE001 - unpickling runs code of the columns' classes
            reason = f"the rollout cannot be unpickled in the reward worker: {type(error).__name__}: {error}"
            failed = TimedScore(Score.failed(ScoreOutcome.ERROR, reason[:300]))
            del self.rollouts[places.start :]
            self.rollouts += [Rollout(completion="")] * len(rows)  # places that no call refers to
            self._scores += [failed] * len(rows)
            return
        self._scores += [None] * len(rows)
        self._missing += len(rows)
        self.calls.append(Call(self, component, tuple(places), may_split))

    def complete(self, component: int, rows: Sequence[int], scores: Sequence[TimedScore]) -> None:
        with self._changed:
            for row, score in zip(rows, scores, strict=True):
                self._scores[row] = score
            self._missing -= len(rows)
            if not self._missing:
                self._changed.notify_all()

    def wait(self, runner: Runner) -> list[list[RowAnswer]]:
        """The answers; raises the runner's own failure, which is never a score."""
        with self._changed:
            while self._missing:
                self._changed.wait(CHECK_S)
                runner.check()
        return [[_packed(self._scores[row]) for row in rows] for rows in self._rows]


def _packed(timed: TimedScore | None) -> RowAnswer:
    if timed is None:
        raise RewardError("a row of a finished call has no score")
    return pack_row(timed)
