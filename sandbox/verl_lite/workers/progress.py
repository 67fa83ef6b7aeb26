"""A page of shared memory in which each worker records its current call, for the parent to read.

A worker that holds the GIL in C code cannot answer questions. It writes the page before each call, so
the parent still knows which call passed its deadline, and kills the worker.
"""

import mmap
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

FIELDS = 4  # chunk, position, started_ns, limit: 8 bytes each


@dataclass(frozen=True, slots=True)
class Progress:
    """A worker has been running call `position` of chunk `chunk` since `started_ns` (0: no call)."""

    chunk: int
    position: int
    started_ns: int


class Slot:
    """One worker's part of the page. `started_ns` is on the monotonic clock that all processes share."""

    def __init__(self, numbers: memoryview) -> None:
        self._numbers = numbers

    def release(self) -> None:
        self._numbers.release()

    def clear(self) -> None:
        for index in range(FIELDS):
            self._numbers[index] = 0

    def begin_call(self, chunk: int, position: int, now_ns: int) -> None:
        # The start comes first: a reader between the writes sees a call that began later, never earlier.
        numbers = self._numbers
        numbers[2] = now_ns
        numbers[0] = chunk
        numbers[1] = position

    def end_call(self) -> None:
        self._numbers[2] = 0

    def read(self) -> Progress:
        return Progress(self._numbers[0], self._numbers[1], self._numbers[2])

    @property
    def limit(self) -> int:
        """The position before which the worker must stop: other workers have the rest."""
        return int(self._numbers[3])

    @limit.setter
    def limit(self, position: int) -> None:
        self._numbers[3] = position


# a worker's main function; the worker exits when it returns
Serve: TypeAlias = Callable[[socket.socket, Slot], None]


class ProgressPage:
    """The page for `workers` workers: the parent makes it (`create`), others map its descriptor."""

    def __init__(self, fd: int, workers: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, workers * FIELDS * 8)
        self._numbers = memoryview(self._map).cast("q")
        self.slots = [Slot(self._numbers[i * FIELDS : (i + 1) * FIELDS]) for i in range(workers)]

    @classmethod
    def create(cls, workers: int) -> "ProgressPage":
        fd = os.memfd_create("verl_lite_progress")
        os.ftruncate(fd, workers * FIELDS * 8)
        return cls(fd, workers)

    def close(self) -> None:
        for slot in self.slots:
            slot.release()
        self._numbers.release()
        self._map.close()
        os.close(self.fd)
