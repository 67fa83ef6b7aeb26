"""Requests and replies of a program that keeps running in the sandbox."""

import contextlib
import socket
import struct
import threading
import time
from concurrent.futures import CancelledError, TimeoutError as FutureTimeout

from verl_lite.errors import SandboxError
from verl_lite.sandbox.backend import RunFuture
from verl_lite.sandbox.limits import Result, Status

SIZE = struct.Struct("<I")
"""What precedes each request and each reply: its number of bytes."""
MAX_REPLY_BYTES = 64 * 2**20
_ENDS_ITSELF_S, _END_S = 1.0, 10.0  # how long a run that closed its channel may take to end, and once stopped


class SessionEnded(Exception):
    """The program ended. `result` says how; its status is `killed` where we stopped it."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.message or f"the program ended: {result.status}")
        self.result = result


class SandboxSession:
    """A program of `Sandbox.open_python`. It reads requests from descriptor 0 and writes a reply to each.

    Requests and replies are bytes behind their size (`SIZE`). What it writes elsewhere is in the result
    when it ends. Used by one thread at a time; `close` by any.
    """

    def __init__(self, channel: socket.socket, future: RunFuture) -> None:
        self._channel = channel
        self._future = future
        self._lock = threading.Lock()

    def ask(self, request: bytes, timeout_s: float) -> bytes:
        """The program's reply. Raises TimeoutError, which ends the program, and SessionEnded.

        The time counts from now, also while the program waits for a worker of the sandbox.
        """
        deadline_s = time.monotonic() + timeout_s
        try:
            self._channel.settimeout(timeout_s)
            self._channel.sendall(SIZE.pack(len(request)) + request)
            (size,) = SIZE.unpack(self._receive(SIZE.size, deadline_s))
            if size > MAX_REPLY_BYTES:
                self._future.cancel()
                raise EOFError
            return self._receive(size, deadline_s)
        except TimeoutError:
            self.close()
            raise
        except (EOFError, OSError):
            raise SessionEnded(self._result()) from None

    def close(self) -> None:
        """End the program. A second call does nothing."""
        with self._lock:
            self._future.cancel()
            with contextlib.suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)
            self._channel.close()

    def _receive(self, size: int, deadline_s: float) -> bytes:
        parts: list[bytes] = []
        while size:
            self._channel.settimeout(max(deadline_s - time.monotonic(), 0.001))
            part = self._channel.recv(min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _result(self) -> Result:
        self._channel.close()  # a program that closed only its own end has to end too
        for wait_s in (_ENDS_ITSELF_S, _END_S):
            try:
                return self._future.result(wait_s)
            except CancelledError:
                return Result(status=Status.KILLED, message="the session was closed")
            except FutureTimeout:
                self._future.cancel()
        raise SandboxError(f"a program that was stopped did not end within {_END_S:g} s")
