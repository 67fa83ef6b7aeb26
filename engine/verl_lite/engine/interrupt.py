"""Ctrl-C or SIGTERM ends a run in order: the first asks, the loop stops at its next safe point.

The second insists. SIGTERM is what a cluster's scheduler sends before it takes a machine away.
"""

import signal
import sys
from types import FrameType, TracebackType

__all__ = ["Interrupt", "StopRequested"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Exception):
    """The user asked to stop; raised where the state is whole. No error: it ends the loop."""


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
