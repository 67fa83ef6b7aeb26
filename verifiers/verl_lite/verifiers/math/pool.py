"""The caller's side of the worker processes: bounded waits, replacement, safety under fork and threads.

`ask` may be called from any thread, from a forked child (which gets workers of its own), or inside
Ray; it returns by the deadline plus a small grace, whatever the worker does. The calling process
never imports sympy.
"""

import atexit
import contextlib
import json
import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from verl_lite.verifiers.math.expressions import Expr
from verl_lite.verifiers.math.worker import read_frame, write_frame

__all__ = ["WORKER_MEMORY_MB", "Reply", "ask", "close", "num_workers", "start", "wait_until_ready"]

WORKER_MEMORY_MB = 1024
STARTING_CHECK_S = 0.02
GRACE_S = 0.25  # the supervisor answers by the deadline; past this it is replaced itself


@dataclass(frozen=True, slots=True)
class Reply:
    """`status`: ok | refused | timeout | memory | error; `answer` is what the question returned."""

    status: str
    why: str = ""
    answer: Any = None


class Worker:
    """One supervisor process (see worker.py)."""

    def __init__(self) -> None:
        request_read, self.request = os.pipe()
        self.reply, reply_write = os.pipe()
        self.is_ready = False
        environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        arguments = [sys.executable, "-S", "-m", "verl_lite.verifiers.math.worker", str(WORKER_MEMORY_MB)]
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                arguments,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, request_read, 0),
                    (os.POSIX_SPAWN_DUP2, reply_write, 1),
                    (os.POSIX_SPAWN_DUP2, null, 2),
                ],
                setpgroup=0,  # Ctrl-C in a terminal is the caller's business
            )
        finally:
            for descriptor in (request_read, reply_write, null):
                os.close(descriptor)

    def check(self) -> bool | None:
        """True once it takes questions, False while it starts, None where it has died; never waits."""
        if not self.is_ready and self.has_reply(0.0):
            if self.receive(0.0) != b"ready":
                return None
            self.is_ready = True
        return self.is_ready

    def ask(self, body: bytes, deadline: float) -> Reply | None:
        """The reply, or None where the process has to be replaced (it is killed here then)."""
        try:
            write_frame(self.request, struct.pack("<d", deadline - time.monotonic()) + body)
        except OSError:
            self.kill()
            return None
        received = self.receive(deadline + GRACE_S)
        if received is None:
            self.kill()
            return None
        parsed = json.loads(received)
        return Reply(parsed["status"], parsed["why"], parsed.get("answer"))

    def has_reply(self, timeout_s: float) -> bool:
        poller = select.poll()
        poller.register(self.reply, select.POLLIN | select.POLLHUP)
        return bool(poller.poll(timeout_s * 1000))

    def receive(self, deadline: float) -> bytes | None:
        if not self.has_reply(max(0.0, deadline - time.monotonic())):
            return None
        with contextlib.suppress(OSError):
            return read_frame(self.reply)
        return None

    def kill(self) -> None:
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.forget()

    def forget(self) -> None:
        """Close our ends; the supervisor ends by itself once nobody holds them."""
        for descriptor in (self.request, self.reply):
            with contextlib.suppress(OSError):
                os.close(descriptor)


class Pool:
    """At most `size` workers, started when they are first needed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.workers: set[Worker] = set()
        self.idle: list[Worker] = []
        self.condition = threading.Condition()

    def start(self) -> None:
        """Start one worker ahead of need; returns at once."""
        with self.condition:
            if not self.workers:
                self.idle.append(self.add())

    def add(self) -> Worker:
        worker = Worker()
        self.workers.add(worker)
        return worker

    def acquire(self, deadline: float) -> Worker | None:
        """A worker that takes questions, None where there is none by the deadline.

        Nobody is handed a worker that still starts while another may come free.
        """
        with self.condition:
            while True:
                for worker in list(self.idle):
                    state = worker.check()
                    if state is not False:
                        self.idle.remove(worker)
                        if state:
                            return worker
                        self.workers.discard(worker)
                        worker.kill()
                if len(self.workers) < self.size and all(worker.is_ready for worker in self.idle):
                    self.idle.append(self.add())
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    return None
                self.condition.wait(min(remaining_s, STARTING_CHECK_S) if self.idle else remaining_s)

    def release(self, worker: Worker, *, lost: bool) -> None:
        with self.condition:
            if lost:
                self.workers.discard(worker)
            elif worker in self.workers:
                self.idle.append(worker)
            self.condition.notify()

    def ask(self, body: bytes, deadline: float) -> Reply:
        for _ in range(self.size + 1):  # a dead worker is no reason to fail
            worker = self.acquire(deadline)
            if worker is None:
                return Reply("timeout", "every worker was busy or still starting until the deadline")
            reply: Reply | None = None
            try:
                reply = worker.ask(body, deadline)
            except BaseException:
                worker.kill()
                raise
            finally:
                self.release(worker, lost=reply is None)
            if reply is not None:
                return reply
            if time.monotonic() >= deadline:
                return Reply("timeout", "not decided before the deadline")
        return Reply("error", "the worker process cannot be started or ended unexpectedly")

    def wait_until_ready(self, timeout_s: float, count: int) -> None:
        """Wait for `count` workers to have started, so that starting is not charged to a question."""
        deadline = time.monotonic() + timeout_s
        with self.condition:
            while len(self.workers) < min(count, self.size):
                self.idle.append(self.add())
        taken = [self.acquire(deadline) for _ in range(min(count, self.size))]
        for worker in taken:
            if worker is not None:
                self.release(worker, lost=False)

    def close(self) -> None:
        with self.condition:
            workers, self.workers, self.idle = self.workers, set(), []
        for worker in workers:
            worker.kill()


def num_workers() -> int:
    """How many questions run at once: one a usable core, at most four."""
    return min(4, len(os.sched_getaffinity(0)))


_pool: Pool | None = None
_pool_lock = threading.Lock()


def _current() -> Pool:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = Pool(num_workers())
        return _pool


def start() -> None:
    """Start a worker in the background, so that the first hard question does not wait for it."""
    _current().start()


def wait_until_ready(timeout_s: float, count: int = 1) -> None:
    """Start `count` workers and wait until they take questions, at most `timeout_s`."""
    _current().wait_until_ready(timeout_s, count)


def ask(question: str, *arguments: Expr | str, timeout_s: float) -> Reply:
    """Put a question of `symbolic.QUESTIONS` to a worker; always returns within timeout_s + 0.5 s."""
    deadline = time.monotonic() + timeout_s
    return _current().ask(pickle.dumps((question, arguments)), deadline)


def close() -> None:
    """Stop the worker processes; the next question starts new ones."""
    global _pool
    with _pool_lock:
        pool, _pool = _pool, None
    if pool is not None:
        pool.close()


def _forget_in_child() -> None:
    """A forked child must not talk through its parent's pipes, nor wait on a lock nobody holds."""
    global _pool, _pool_lock
    _pool_lock = threading.Lock()
    if _pool is not None:
        for worker in _pool.workers:
            worker.forget()
    _pool = None


atexit.register(close)
os.register_at_fork(after_in_child=_forget_in_child)
