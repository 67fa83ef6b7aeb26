"""Workers where the fork server cannot be (macOS, Windows): processes of multiprocessing's "spawn".

Each imports everything by itself, so a replacement takes seconds instead of milliseconds; deadlines hold
all the same. Memory is not watched, and what a killed worker had started is not found.
"""

import contextlib
import importlib
import multiprocessing
import os
import pickle
import socket
import time
from typing import Any

from verl_lite.errors import VerlLiteError
from verl_lite.workers.channel import receive_frame, send_frame
from verl_lite.workers.fork_server_handle import WorkerStartError
from verl_lite.workers.pool import Answer, Pool, WorkerPool
from verl_lite.workers.progress import FIELDS, Slot
from verl_lite.workers.system import can_fork_workers

_READY = b"ready"
_NO_LIMIT = (1 << 63) - 1
START_S = 120.0  # the longest that a worker may take to import and prepare


class SpawnedWorker:
    """One process that runs the `Serve` of `entry` ("module:function"), called with `argument`.

    It takes one job at a time. Raises WorkerStartError if it cannot import or prepare.
    """

    def __init__(self, entry: str, argument: object) -> None:
        self._channel, theirs = socket.socketpair()
        context = multiprocessing.get_context("spawn")
        pickled = pickle.dumps(argument, 5)
        self._process: Any = context.Process(target=_main, args=(theirs, entry, pickled), daemon=True)
        self._process.start()
        theirs.close()
        self._is_ready = False

    def wait_ready(self, deadline_s: float) -> None:
        """Wait until it takes jobs. Raises WorkerStartError, or TimeoutError at `deadline_s`."""
        if self._is_ready:
            return
        self._channel.settimeout(max(deadline_s - time.monotonic(), 0.001))
        try:
            answer = receive_frame(self._channel)
        except (EOFError, ConnectionError):
            raise WorkerStartError(f"a worker ended {self.how_it_ended()} while it started") from None
        if answer != _READY:
            raise WorkerStartError(answer.decode(errors="replace"))
        self._is_ready = True

    def send(self, job: bytes) -> None:
        """Send a job. Raises OSError when the worker is gone."""
        self._channel.settimeout(None)
        send_frame(self._channel, job)

    def receive(self, deadline_s: float) -> bytes:
        """The next body by `deadline_s` (monotonic clock). Raises TimeoutError, or EOFError when it died."""
        self._channel.settimeout(max(deadline_s - time.monotonic(), 0.001))
        try:
            return receive_frame(self._channel)
        except ConnectionError:
            raise EOFError from None

    def how_it_ended(self) -> str:
        self._process.join(5.0)
        return f"with exit code {self._process.exitcode}"

    def stop(self) -> None:
        """Kill the process; whoever waits for it sees its end."""
        self._process.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self._channel.close()


def _main(channel: socket.socket, entry: str, pickled: bytes) -> None:
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    try:
        module, _, name = entry.partition(":")
        serve = getattr(importlib.import_module(module), name)(pickle.loads(pickled))
    except BaseException as error:  # noqa: BLE001 - the border: what is imported may raise anything
        why = str(error) if isinstance(error, VerlLiteError) else f"{type(error).__name__}: {error}"
        send_frame(channel, why[:50_000].encode())
        return
    numbers = memoryview(bytearray(FIELDS * 8)).cast("q")
    slot = Slot(numbers)
    slot.limit = _NO_LIMIT
    send_frame(channel, _READY)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone
        serve(channel, slot)


class SpawnedPool(Pool[SpawnedWorker]):
    """Workers that are spawned one by one, and stay until they fail."""

    def _reset(self) -> None:
        self._count = 0

    def start(self) -> None:
        """Start the first worker; returns at once."""
        with self._changed:
            if not self._count:
                self._count += 1
                self._idle.append(SpawnedWorker(self._entry, self._argument))

    def wait_ready(self, timeout_s: float, count: int = 1) -> None:
        """Start `count` workers and wait for them, at most `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while self._count < min(count, self.size):
                self._count += 1
                self._idle.append(SpawnedWorker(self._entry, self._argument))
            for worker in self._idle:
                with contextlib.suppress(TimeoutError, WorkerStartError):  # `ask` says so
                    worker.wait_ready(deadline_s)

    def ask(self, job: bytes, deadline_s: float) -> Answer:
        """A worker's reply to `job` by `deadline_s` (monotonic clock), whatever the worker does."""
        worker = self._acquire(deadline_s)
        if worker is None:
            return Answer("timeout", "every worker was busy until the deadline")
        keep = False
        try:
            answer = self._attempt(worker, job, deadline_s)
            keep = answer.status == "ok" and self._is_clean(answer.body)
        finally:
            self._release(worker, keep=keep)
        return answer

    def _attempt(self, worker: SpawnedWorker, job: bytes, deadline_s: float) -> Answer:
        try:
            worker.wait_ready(deadline_s)
            worker.send(job)
            return Answer("ok", body=worker.receive(deadline_s))
        except TimeoutError:
            return Answer("timeout", "not decided before the deadline")
        except (EOFError, OSError):
            return Answer("died", f"ended its worker process {worker.how_it_ended()}")
        except WorkerStartError as error:
            return Answer("error", str(error))

    def _kill(self, worker: SpawnedWorker) -> None:
        worker.stop()

    def close(self) -> None:
        """End the idle workers; the next job starts new ones."""
        with self._changed:
            for worker in self._idle:
                worker.kill()
            self._count -= len(self._idle)
            self._idle = []

    def forget(self) -> None:
        """In a forked child: the workers are the parent's."""
        self._idle, self._count = [], 0

    def _acquire(self, deadline_s: float) -> SpawnedWorker | None:
        with self._changed:
            while not self._idle and self._count >= self.size:
                if not self._changed.wait(deadline_s - time.monotonic()):
                    return None
            if self._idle:
                return self._idle.pop()
            self._count += 1
            return SpawnedWorker(self._entry, self._argument)

    def _release(self, worker: SpawnedWorker, *, keep: bool) -> None:
        with self._changed:
            if keep:
                self._idle.append(worker)
            else:
                worker.kill()
                self._count -= 1
            self._changed.notify()


def pool_kind() -> type[WorkerPool] | type[SpawnedPool]:
    """The pool that works on this system: of forked workers where that can be."""
    return WorkerPool if can_fork_workers() else SpawnedPool
