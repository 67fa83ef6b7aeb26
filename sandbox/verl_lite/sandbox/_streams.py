"""Reads a run's output while it runs, so that a flood stops at its limit and is never stored."""

import os
import select

_CHUNK = 1 << 16
DRAINED = {"stderr": 64}
"""By stream: how many times its limit is read and thrown away before a run is stopped for it. Warnings and
progress on stderr are no part of a program's answer.
"""


class OutputStreams:
    """The read ends of several pipes, each limited to `limit_bytes`.

    `header` is the size in bytes of what we write to a stream before the program starts; it does not
    count towards the limit. `over` names the first stream that exceeded its limit. Until `watch`,
    output waits in the pipes.
    """

    def __init__(
        self, descriptors: dict[str, int], limit_bytes: int, poll: select.poll, header: dict[str, int]
    ) -> None:
        self.over: str | None = None
        self.watched = False
        self._heading = header
        self._limit_bytes = limit_bytes
        self._poll = poll
        self._names = {descriptor: name for name, descriptor in descriptors.items()}
        self._data = {name: bytearray() for name in descriptors}
        self._seen = dict.fromkeys(self._data, 0)
        self._open = set(self._names)
        for descriptor in self._open:
            os.set_blocking(descriptor, False)

    def watch(self) -> None:
        """Register with `poll`: from now on it reports when there is something to read."""
        self.watched = True
        for descriptor in self._open:
            self._poll.register(descriptor, select.POLLIN)

    def owns(self, descriptor: int) -> bool:
        """Whether `descriptor` is one of these and still open."""
        return descriptor in self._open

    def fill(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._close(descriptor)
            return
        name = self._names[descriptor]
        stored, limit = self._data[name], self._limit(name)
        stored += data[: limit - len(stored) + 1]
        self._seen[name] += len(data)
        if self._seen[name] > limit * DRAINED.get(name, 1):
            self.over = self.over or name

    def drain(self) -> None:
        """After the run has ended: read the rest, up to the limits, and close everything."""
        for descriptor in list(self._open):
            name = self._names[descriptor]
            while self.owns(descriptor) and self.over != name:
                before = self._seen[name]
                self.fill(descriptor)
                if self.owns(descriptor) and self._seen[name] == before:
                    break  # the write end is still open somewhere: do not wait for more
            self._close(descriptor)

    def header(self, name: str) -> bytes:
        """Our own first bytes of stream `name`."""
        return bytes(self._data[name][: self._heading[name]])

    def data(self, name: str) -> bytes:
        """What the program wrote to stream `name`, cut at the limit."""
        return bytes(self._data[name][self._heading.get(name, 0) : self._limit(name)])

    def _limit(self, name: str) -> int:
        return self._heading.get(name, 0) + self._limit_bytes

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.discard(descriptor)
            if self.watched:
                self._poll.unregister(descriptor)
            os.close(descriptor)
