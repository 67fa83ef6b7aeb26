"""Batch rewards that stay in this process (models): one thread each, while generation continues."""

import queue
import threading
import time
from collections.abc import Sequence

from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.inline import InlineRunner
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.score import Score, ScoreOutcome

END_S = 2.0  # how long `close` waits for the call that is running
GIVE_UP_AFTER = 3  # when a call is this many deadlines late, the calls behind it time out too


class ThreadRunner:
    """Runs the calls of one component, one after another, in its own thread.

    A thread cannot be killed. A call past its deadline is a "timeout"; if it returns later, the thread
    continues with the next call; if it never does, the calls behind it time out as well.
    """

    def __init__(self, component: Component) -> None:
        self._timeout_s = component.timeout_s
        self._inline = InlineRunner(component)
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._current: tuple[Call, float] | None = None  # and when it began
        self._lock = threading.Lock()  # a call is answered once: by the thread or by `check`
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"verl-lite-{component.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._calls.put(call)

    def check(self) -> None:
        """Raise the thread's own failure, if any; time out a call that is late."""
        if self._failure is not None:
            raise self._failure
        current = self._current
        if current is None:
            return
        call, began_s = current
        late_s = time.monotonic() - began_s - self._timeout_s
        if late_s > 0:
            self._time_out(
                call, f"no answer within {self._timeout_s:g} s; a call in this process cannot be ended"
            )
        if late_s > self._timeout_s * GIVE_UP_AFTER:
            while not self._calls.empty():
                behind = self._calls.get()
                if behind is not None:
                    self._time_out(behind, "an earlier call of this reward never returned")

    def close(self) -> None:
        """End the thread after its current call; a hanging call is abandoned."""
        self._calls.put(None)
        if self._thread.is_alive():
            self._thread.join(END_S)

    def _time_out(self, call: Call, reason: str) -> None:
        share_s = self._timeout_s / len(call.rows)
        self._answer(call, [TimedScore(Score.failed(ScoreOutcome.TIMEOUT, reason), share_s)] * len(call.rows))

    def _answer(self, call: Call, scores: Sequence[TimedScore]) -> None:
        with self._lock:
            if call.answered:
                return
            call.answered = True
        call.run.complete(call.component, call.rows, scores)

    def _run(self) -> None:
        try:
            self._inline.build()  # loading a model has no deadline
            while (call := self._calls.get()) is not None:
                if not call.run.cancelled:
                    self._current = call, time.monotonic()
                    self._answer(call, self._inline.run([call.rows], call.run.rollouts))
                    self._current = None
        except Exception as error:  # noqa: BLE001 - raised in `finish`
            self._failure = error
