"""The worker process: a supervisor that never computes, and a forked child that does.

The supervisor imports sympy once, forks a child in milliseconds, hands it one request at a time and
kills it at the deadline; so a time-out costs a fork, not an import. It ends when its standard input
closes or its parent is gone. Frames are 4 bytes of length, then the body; requests are pickled trees
from our own caller (preceded by the seconds allowed), replies are JSON.

Run as `python -m verl_lite.verifiers.math.worker MEMORY_MB`.
"""

import contextlib
import gc
import json
import os
import pickle
import resource
import select
import signal
import struct
import sys
import time
from typing import Any

__all__ = ["main", "read_frame", "write_frame"]

REQUESTS_A_CHILD = 300  # sympy's caches grow; a fresh fork is cheap
PARENT_CHECK_S = 2.0


def read_exactly(descriptor: int, size: int) -> bytes | None:
    chunks = []
    while size:
        chunk = os.read(descriptor, min(size, 1 << 16))
        if not chunk:
            return None
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def read_frame(descriptor: int) -> bytes | None:
    """The next frame, or None where the other side has closed."""
    header = read_exactly(descriptor, 4)
    return None if header is None else read_exactly(descriptor, struct.unpack("<I", header)[0])


def write_frame(descriptor: int, body: bytes) -> None:
    view = memoryview(struct.pack("<I", len(body)) + body)
    while view:
        view = view[os.write(descriptor, view) :]


class Child:
    """A forked process that answers requests until it is killed."""

    def __init__(self, memory_mb: int) -> None:
        request_read, self.request = os.pipe()
        self.reply, reply_write = os.pipe()
        self.served = 0
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.request)
            os.close(self.reply)
            _serve(request_read, reply_write, memory_mb, parent)
        os.close(request_read)
        os.close(reply_write)

    def ask(self, request: bytes, timeout_s: float) -> bytes:
        self.served += 1
        try:
            write_frame(self.request, request)
            readable, _, _ = select.select([self.reply], [], [], max(0.0, timeout_s))
            if not readable:
                return _reply("timeout", "not decided before the deadline")
            return read_frame(self.reply) or _reply(
                "memory", "the worker ended, most likely for lack of memory"
            )
        except OSError as error:
            return _reply("error", f"the worker ended: {error}")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.request)
        os.close(self.reply)


def main() -> None:
    memory_mb = int(sys.argv[1])
    from verl_lite.verifiers.math.algebra.symbolic import equal
    from verl_lite.verifiers.math.expressions import num, sym

    equal(sym("x"), num(1))  # loads what sympy loads lazily
    gc.collect()
    gc.freeze()
    parent = os.getppid()
    child = Child(memory_mb)
    write_frame(1, b"ready")
    while True:
        while not select.select([0], [], [], PARENT_CHECK_S)[0]:
            if os.getppid() != parent:
                child.kill()
                return
        frame = read_frame(0)
        if frame is None:
            child.kill()
            return
        (allowed_s,) = struct.unpack("<d", frame[:8])
        reply = child.ask(frame[8:], allowed_s)
        if child.served >= REQUESTS_A_CHILD or not reply.startswith(b'{"status": "ok"'):
            child.kill()
            child = Child(memory_mb)
        write_frame(1, reply)


def _serve(request: int, reply: int, memory_mb: int, parent: int) -> None:
    """The child's life. Never returns: its memory is capped, and it dies with the supervisor."""
    try:
        _die_with_parent(parent)
        limit = memory_mb << 20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.close(0)
        while (frame := read_frame(request)) is not None:
            write_frame(reply, _answer(frame))
    finally:
        os._exit(0)


def _die_with_parent(parent: int) -> None:
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(0)


def _answer(frame: bytes) -> bytes:
    from verl_lite.verifiers.math.algebra.symbolic import QUESTIONS

    question, arguments = pickle.loads(frame)
    started = time.perf_counter()
    try:
        answer = QUESTIONS[question](*arguments)
    except MemoryError:
        return _reply("memory", "more memory than a worker may take")
    except RecursionError:
        return _reply("refused", "an expression too deep for sympy")
    except Exception as error:  # noqa: BLE001 - sympy raises anything; the border reports it as its own status
        return _reply("refused", f"{type(error).__name__}: {error}"[:200])
    return _reply("ok", "", answer=answer, seconds=time.perf_counter() - started)


def _reply(status: str, why: str, **more: Any) -> bytes:
    return json.dumps({"status": status, "why": why, **more}).encode()


if __name__ == "__main__":
    main()
