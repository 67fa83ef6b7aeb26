"""Reads a run's output while it runs, so that a flood is stopped at its limit and never stored."""

import os
import select

_CHUNK = 1 << 16


class OutputStreams:
    """The reading ends of several pipes, each bounded to `limit_bytes`, after as many bytes of
    `heading` as are ours: what is written to that stream before the program starts.

    `fill` takes what is there; `over` names the first stream that exceeded its limit. `watch` has
    `poll` tell of them from then on: until then what is written waits in the pipes.
    """

    def __init__(
        self, descriptors: dict[str, int], limit_bytes: int, poll: select.poll, heading: dict[str, int]
    ) -> None:
        self.over: str | None = None
        self.watched = False
        self._heading = heading
        self._limit_bytes = limit_bytes
        self._poll = poll
        self._names = {descriptor: name for name, descriptor in descriptors.items()}
        self._data = {name: bytearray() for name in descriptors}
        self._open = set(self._names)
        for descriptor in self._open:
            os.set_blocking(descriptor, False)

    def watch(self) -> None:
        """From now on, `poll` tells when there is something to read."""
        self.watched = True
        for descriptor in self._open:
            self._poll.register(descriptor, select.POLLIN)

    def owns(self, descriptor: int) -> bool:
        """Whether `descriptor` is one of these and still open."""
        return descriptor in self._open

    def fill(self, descriptor: int) -> None:
        """Read once from a ready `descriptor`."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._close(descriptor)
            return
        name = self._names[descriptor]
        stored, most = self._data[name], self._most(name)
        stored += data[: most - len(stored) + 1]
        if len(stored) > most:
            self.over = self.over or name

    def drain(self) -> None:
        """After the run's end: read the rest, up to the limits, and close everything."""
        for descriptor in list(self._open):
            name = self._names[descriptor]
            while self.owns(descriptor) and len(self._data[name]) <= self._most(name):
                before = len(self._data[name])
                self.fill(descriptor)
                if self.owns(descriptor) and len(self._data[name]) == before:
                    break  # someone still holds the other end: nothing more will be waited for
            self._close(descriptor)

    def heading(self, name: str) -> bytes:
        """The first bytes of stream `name`, which are ours."""
        return bytes(self._data[name][: self._heading[name]])

    def data(self, name: str) -> bytes:
        """What was written to stream `name`, cut at the limit."""
        return bytes(self._data[name][self._heading.get(name, 0) : self._most(name)])

    def _most(self, name: str) -> int:
        return self._heading.get(name, 0) + self._limit_bytes

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.discard(descriptor)
            if self.watched:
                self._poll.unregister(descriptor)
            os.close(descriptor)
