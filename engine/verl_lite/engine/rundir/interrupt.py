"""After Ctrl-C or SIGTERM the loop stops at its next safe point; a second one stops it immediately.

Cluster schedulers send SIGTERM before they reclaim a machine.
"""

import queue
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

Answer = TypeVar("Answer")
LOOK_S = 0.1  # polling interval of waiting threads
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Exception):
    """The user asked to stop. Raised at safe points; not an error, it ends the loop."""


def next_of(answers: "queue.SimpleQueue[Answer]", check: Callable[[], None]) -> Answer:
    """The queue's next entry. `check` is called while waiting; an exception from it ends the wait."""
    while True:
        check()
        try:
            return answers.get(timeout=LOOK_S)
        except queue.Empty:
            continue


class Interrupt:
    """While active, SIGINT and SIGTERM set `requested`; a second one raises KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raise StopRequested when the user has asked to stop."""
        if self.requested:
            raise StopRequested

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("\nstopping: writing a checkpoint first (Ctrl-C again to stop without)", file=sys.stderr)

    def __enter__(self) -> "Interrupt":
        self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
