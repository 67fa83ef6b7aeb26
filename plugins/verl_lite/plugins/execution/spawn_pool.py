"""The worker processes where none can be forked (macOS, Windows): one thread per spawned worker.

A call past its deadline costs its worker, which is started again; that takes seconds, for it imports
everything anew. Memory is not watched. Everything else is as in pool.py.
"""

import pickle
import queue
import threading
import time
from collections import Counter
from collections.abc import Sequence

from verl_lite.errors import PluginError, RewardError
from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.limits import BUILD_S, LOAD_S, WorkerLimits
from verl_lite.plugins.execution.queues import pickle_rows
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.spec import spec_of
from verl_lite.plugins.execution.wire import PickledRow, read_answers
from verl_lite.plugins.execution.worker_failures import halves
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.workers import SpawnedWorker, WorkerStartError

_ENTRY = "verl_lite.plugins.execution.worker:prepare"


class SpawnPool:
    """Runs the calls of `components` (index in the execution -> component) in `workers` processes."""

    def __init__(
        self, components: dict[int, Component], workers: int, limits: WorkerLimits, replaced: Counter[str]
    ) -> None:
        self._components = components
        self._position_of = {index: at for at, index in enumerate(components)}
        self._specs = [spec_of(component) for component in components.values()]
        self._replaced = replaced
        self._failure: Exception | None = None
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"verl-lite-reward-worker-{at}", daemon=True)
            for at in range(workers)
        ]
        self._workers: set[SpawnedWorker] = set()
        self._first: SpawnedWorker | None = None
        self._stopping = False

    def start(self) -> None:
        """Start the first process and the threads; raises PluginError when it cannot load a reward."""
        self._first = self._new_worker()
        for thread in self._threads:
            thread.start()

    def submit(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._calls.put(call)

    def check(self) -> None:
        """Raise the error that ended a thread, if any."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        self._stopping = True
        for worker in list(self._workers):
            worker.kill()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _new_worker(self) -> SpawnedWorker:
        worker = SpawnedWorker(_ENTRY, self._specs)
        self._workers.add(worker)
        try:
            worker.wait_ready(time.monotonic() + LOAD_S)
        except (WorkerStartError, TimeoutError) as error:
            self._drop(worker)
            raise PluginError(str(error) or f"the rewards were not imported within {LOAD_S:g} s") from None
        return worker

    def _drop(self, worker: SpawnedWorker) -> None:
        self._workers.discard(worker)
        worker.kill()

    # ---- everything below runs in the threads

    def _run(self) -> None:
        worker, self._first = self._first, None
        built: set[int] = set()
        try:
            while (call := self._calls.get()) is not None and not self._stopping:
                if call.run.cancelled:
                    continue
                if worker is None:
                    worker, built = self._new_worker(), set()
                if not self._answer(worker, call, built):
                    self._drop(worker)
                    worker = None
        except Exception as error:  # noqa: BLE001 - raised in `finish`
            if not self._stopping:
                self._failure = error

    def _answer(self, worker: SpawnedWorker, call: Call, built: set[int]) -> bool:
        """Answer the call, or put its halves back; False when the worker is lost."""
        rows = pickle_rows(call)
        if isinstance(rows, str):
            self._complete(call, Score.failed(ScoreOutcome.ERROR, rows))
            return True
        timeout_s = self._components[call.component].timeout_s
        position = self._position_of[call.component]
        started = time.monotonic()
        try:
            if call.component not in built:  # a chunk without calls only builds the reward
                self._ask(worker, position, [], BUILD_S)
                built.add(call.component)
                started = time.monotonic()
            scores = self._ask(worker, position, [rows], timeout_s)
        except TimeoutError:
            self._lost("timeout")
            reason = f"no answer within {timeout_s:g} s; its worker process was killed"
            self._complete(call, Score.failed(ScoreOutcome.TIMEOUT, reason), time.monotonic() - started)
            return False
        except (EOFError, OSError, ValueError) as error:
            self._lost("died")
            self._after_death(worker, call, error)
            return False
        call.run.complete(call.component, call.rows, scores)
        return True

    def _ask(
        self, worker: SpawnedWorker, position: int, calls: list[list[PickledRow]], timeout_s: float
    ) -> list[TimedScore]:
        deadline_s = time.monotonic() + timeout_s
        worker.send(pickle.dumps((0, position, calls), 5))
        scores: list[TimedScore] = []
        while True:
            batch = read_answers(worker.receive(deadline_s))
            scores += [timed for rows in batch.scores for timed in rows]
            if batch.health is not None:
                return scores

    def _after_death(self, worker: SpawnedWorker, call: Call, error: Exception) -> None:
        if self._stopping:
            raise RewardError("the pool was closed")
        if call.may_split and len(call.rows) > 1:
            self.submit(halves(call))
            return
        how = str(error) if isinstance(error, ValueError) else f"ended {worker.how_it_ended()}"
        reason = f"the reward's worker process {how} while it scored this row"
        self._complete(call, Score.failed(ScoreOutcome.ERROR, reason))

    def _lost(self, why: str) -> None:
        self._replaced[why] += 1

    @staticmethod
    def _complete(call: Call, score: Score, seconds: float = 0.0) -> None:
        timed = TimedScore(score, seconds / len(call.rows), call.starts + 1)
        call.run.complete(call.component, call.rows, [timed] * len(call.rows))
