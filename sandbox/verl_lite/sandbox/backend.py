"""The backend protocol, and the request that a backend runs."""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from verl_lite.sandbox._memory_file import memory_file
from verl_lite.sandbox._program_files import check_file_names
from verl_lite.sandbox.limits import Limits, Result


class CancelToken:
    """Stops one run, before it starts or while it runs. Thread-safe."""

    def __init__(self) -> None:
        self.cancelled = False
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None

    def attach(self, stop: Callable[[], None]) -> None:
        """From now on `stop` stops the run; calls it at once if the run is already cancelled."""
        with self._lock:
            self._stop = stop
            if self.cancelled:
                stop()

    def detach(self) -> None:
        """The run is over."""
        with self._lock:
            self._stop = None

    def cancel(self) -> None:
        """Stop the run; no effect when it is over."""
        with self._lock:
            self.cancelled = True
            if self._stop is not None:
                self._stop()


@dataclass(frozen=True, slots=True)
class Request:
    """One program to run. Raises TypeError or ValueError for an argument that cannot be used."""

    language: str
    source: bytes
    stdin: bytes
    files: Mapping[str, bytes]
    args: list[str]
    limits: Limits
    cancel_token: CancelToken = field(default_factory=CancelToken)
    # The program's stdin instead; the backend closes it once it is passed.
    channel: socket.socket | None = None

    def __post_init__(self) -> None:
        for name, data in self.files.items():
            if not isinstance(name, str) or not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"files[{name!r}]: expected a name and bytes, got {type(data).__name__}")
        check_file_names(self.files)
        if not isinstance(self.limits, Limits):
            raise TypeError(f"limits: expected Limits, got {type(self.limits).__name__}")
        for argument in self.args:
            if not isinstance(argument, str):
                raise TypeError(f"args: {argument!r}: expected text, got {type(argument).__name__}")
            if "\0" in argument:
                raise ValueError(f"args: {argument!r} holds a NUL character, which the kernel does not allow")

    def stdin_descriptor(self) -> int:
        """A new descriptor that the program reads from; closes ours of the channel."""
        if self.channel is None:
            return memory_file(self.stdin)
        descriptor = os.dup(self.channel.fileno())
        self.channel.close()
        return descriptor


class RunFuture(Future[Result]):
    """A Future whose `cancel` also stops a run in progress; its result is then `killed`.

    As with any Future, `cancel` returns True only if the run had not started.
    """

    cancel_token: CancelToken

    def cancel(self) -> bool:
        """Kill the program if it still runs."""
        if super().cancel():
            return True
        self.cancel_token.cancel()
        return False


class Backend(Protocol):
    """One way of running programs. `run` is called by several threads at once."""

    name: str
    isolated: bool
    languages: frozenset[str]

    def run(self, request: Request) -> Result:
        """Run one program to its end; a sandbox fault is a `sandbox_error` result."""

    def close(self) -> None:
        """Kill every run in progress and end the backend's own processes."""
