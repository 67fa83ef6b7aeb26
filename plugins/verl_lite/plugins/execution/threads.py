"""Batch rewards that stay in this process (models): one thread each, so that generation goes on."""

import queue
import threading
from collections.abc import Sequence

from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.inline import InlineRunner

__all__ = ["ThreadRunner"]


class ThreadRunner:
    """Runs the calls of one component one after the other in a thread of its own."""

    def __init__(self, component: Component) -> None:
        self._inline = InlineRunner(component)
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"verl-lite-{component.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._calls.put(call)

    def close(self) -> None:
        """Ask the thread to end. It is not waited for: a call that hangs in this process cannot be ended."""
        self._calls.put(None)

    def _run(self) -> None:
        try:
            while (call := self._calls.get()) is not None:
                if not call.run.cancelled:
                    scores = self._inline.run([call.rows], call.run.rollouts)
                    call.run.complete(call.component, call.rows, scores)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits in `finish`
            self.failure = error
