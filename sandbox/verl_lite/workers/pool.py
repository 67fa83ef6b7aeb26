"""A pool for callers that wait: any thread may ask; a worker without an answer by the deadline is killed.

It has no thread: the caller talks to the worker directly, so a job costs one round trip. A client that
hands out many jobs at a time drives `ForkServerHandle` itself.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from verl_lite.workers.fork_server_handle import ForkServerHandle, WorkerStartError
from verl_lite.workers.worker_handle import WorkerHandle, how_it_ended

CHECK_S = 0.005  # how often a fork server that is still importing is polled
REPORT_S = 1.0  # how long to wait for the report of how a worker ended
WorkerT = TypeVar("WorkerT")


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is the worker's reply.

    timeout  no worker or no reply by the deadline; the worker was killed
    died     the worker ended while it had the job
    error    no worker can be started
    """

    status: Literal["ok", "timeout", "died", "error"]
    why: str = ""
    body: bytes = b""


class Pool(ABC, Generic[WorkerT]):
    """At most `size` workers of the `Serve` of `entry` ("module:function"), called with `argument`.

    A worker is replaced after a reply for which `is_clean` is False, and after `jobs_per_worker` jobs where
    that is cheap.
    """

    def __init__(
        self,
        entry: str,
        argument: object,
        *,
        size: int,
        jobs_per_worker: int,
        is_clean: Callable[[bytes], bool] = bool,
    ) -> None:
        self._entry, self._argument = entry, argument
        self.size = size
        self._jobs_per_worker = jobs_per_worker
        self._is_clean = is_clean
        self._idle: list[WorkerT] = []
        self._changed = threading.Condition()
        self._reset()

    @abstractmethod
    def _reset(self) -> None:
        """There is no worker yet."""

    @abstractmethod
    def start(self) -> None:
        """Start the first processes; returns at once."""

    @abstractmethod
    def wait_ready(self, timeout_s: float, count: int = 1) -> None:
        """Wait until there are `count` workers, or `timeout_s` have passed."""

    @abstractmethod
    def ask(self, job: bytes, deadline_s: float) -> Answer:
        """A worker's reply to `job` by `deadline_s` (monotonic clock), whatever the worker does."""

    def lease(self, deadline_s: float) -> "Lease[WorkerT]":
        """A worker for the caller alone, until it closes the lease. Raises TimeoutError, WorkerStartError."""
        worker = self._acquire(deadline_s)
        if worker is None:
            raise TimeoutError
        return Lease(self, worker)

    @abstractmethod
    def close(self) -> None:
        """End the workers; the next job starts new ones."""

    @abstractmethod
    def forget(self) -> None:
        """In a forked child: leave the workers to the parent."""

    @abstractmethod
    def _acquire(self, deadline_s: float) -> WorkerT | None: ...

    @abstractmethod
    def _attempt(self, worker: WorkerT, job: bytes, deadline_s: float) -> Answer | None: ...

    @abstractmethod
    def _kill(self, worker: WorkerT) -> None: ...

    @abstractmethod
    def _release(self, worker: WorkerT, *, keep: bool) -> None: ...


class Lease(Generic[WorkerT]):
    """A worker that its holder alone asks, for jobs that share state. Made by a pool's `lease`.

    After an answer that is not ok the worker is gone: the next `ask` is "died" at once.
    """

    def __init__(self, pool: Pool[WorkerT], worker: WorkerT) -> None:
        self._pool = pool
        self._worker: WorkerT | None = worker
        self._lock = threading.Lock()
        self._is_closing = False

    def ask(self, job: bytes, deadline_s: float) -> Answer:
        """The worker's reply to `job` by `deadline_s` (monotonic clock), whatever the worker does."""
        with self._lock:
            if self._worker is None or self._is_closing:
                return Answer("died", "the worker has ended")
            answer = self._pool._attempt(self._worker, job, deadline_s)
            answer = answer or Answer("died", "the worker ended between two jobs")
            if answer.status != "ok":
                self._end()
            return answer

    def close(self) -> None:
        """Kill the worker, also while another thread asks it."""
        self._is_closing = True
        worker = self._worker
        if worker is not None:
            self._pool._kill(worker)
        with self._lock:
            self._end()

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            self._pool._release(worker, keep=False)


class WorkerPool(Pool[WorkerHandle]):
    """Workers of one fork server (see ForkServerHandle); all start when first needed."""

    def _reset(self) -> None:
        self.server: ForkServerHandle | None = None
        self.workers: dict[int, WorkerHandle] = {}  # by key

    def start(self) -> None:
        """Start the fork server; returns at once."""
        with self._changed:
            if self.server is None:
                self.server = ForkServerHandle(self._entry, self._argument, workers=self.size)

    def wait_ready(self, timeout_s: float, count: int = 1) -> None:
        """Wait until there are `count` workers, or `timeout_s` have passed."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while time.monotonic() < deadline_s:
                try:
                    is_ready = self._server_is_ready()
                except WorkerStartError:  # `ask` says so
                    return
                while is_ready and len(self.workers) < min(count, self.size):
                    self._idle.append(self._fork())
                if is_ready and all(worker.pid for worker in self.workers.values()):
                    return
                self._changed.wait(CHECK_S)

    def ask(self, job: bytes, deadline_s: float) -> Answer:
        """A worker's reply to `job` by `deadline_s` (monotonic clock), whatever the worker does."""
        why = "the workers ended before they took the job"
        for _ in range(self.size + 1):  # a worker that died earlier must not fail this job
            try:
                worker = self._acquire(deadline_s)
            except WorkerStartError as error:
                why = str(error)
                continue
            if worker is None:
                return Answer("timeout", "every worker was busy or still starting until the deadline")
            keep = False
            try:
                answer = self._attempt(worker, job, deadline_s)
                is_ok = answer is not None and answer.status == "ok" and self._is_clean(answer.body)
                keep = is_ok and worker.jobs_done < self._jobs_per_worker
            finally:
                self._release(worker, keep=keep)
            if answer is not None:
                return answer
        return Answer("error", why)

    def close(self) -> None:
        """End the workers and the fork server; the next job starts new ones."""
        with self._changed:
            self._drop_server()

    def forget(self) -> None:
        """In a forked child: close the handles of workers that belong to the parent."""
        for worker in self.workers.values():
            worker.close()
        if self.server is not None:
            self.server.forget()

    def _attempt(self, worker: WorkerHandle, job: bytes, deadline_s: float) -> Answer | None:
        """The worker's answer; None when it, or its fork server, ended before it could be the job's fault."""
        try:
            body = worker.ask(job, deadline_s)
        except TimeoutError:
            return Answer("timeout", "not decided before the deadline")
        except BrokenPipeError:
            return None
        except ValueError:
            return Answer("died", "sent a damaged reply")
        except EOFError:
            how = self._how_it_ended(worker)
            return Answer("died", how) if how else None
        worker.jobs_done += 1
        return Answer("ok", body=body)

    def _kill(self, worker: WorkerHandle) -> None:
        with self._changed:
            if self.server is not None and self.workers.get(worker.key) is worker:
                self.server.kill(worker)

    def _acquire(self, deadline_s: float) -> WorkerHandle | None:
        """An idle worker or a new one; None where there is none by the deadline."""
        with self._changed:
            while True:
                if self._idle:
                    return self._idle.pop()
                is_ready = self._server_is_ready()
                if is_ready and len(self.workers) < self.size:
                    return self._fork()
                remaining_s = deadline_s - time.monotonic()
                if remaining_s <= 0:
                    return None
                self._changed.wait(remaining_s if is_ready else min(remaining_s, CHECK_S))

    def _release(self, worker: WorkerHandle, *, keep: bool) -> None:
        with self._changed:
            if self.workers.get(worker.key) is not worker:
                worker.close()  # its fork server is gone, and the worker with it
            elif keep:
                self._idle.append(worker)
            else:
                assert self.server is not None
                self.server.kill(worker)
                del self.workers[worker.key]
                worker.close()
            self._changed.notify()

    # ---- everything below is called with the lock held

    def _fork(self) -> WorkerHandle:
        assert self.server is not None
        worker = self.server.fork(0)
        self.workers[worker.key] = worker
        return worker

    def _server_is_ready(self) -> bool:
        """Whether workers can be forked; starts a fork server where there is none."""
        self.start()
        assert self.server is not None
        try:
            if not self.server.wait_ready(0.0):
                return False
        except WorkerStartError:
            self._drop_server()
            raise
        return self._server_is_alive()

    def _server_is_alive(self, timeout_s: float = 0.0) -> bool:
        """Read the server's messages, waiting up to `timeout_s`; a server that is gone is dropped."""
        if self.server is not None and self.server.exits(timeout_s) is None:
            self._drop_server()
        return self.server is not None

    def _how_it_ended(self, worker: WorkerHandle) -> str:
        """How a worker died, in words; "" when its fork server was killed, which is not the job's fault."""
        deadline_s = time.monotonic() + REPORT_S
        with self._changed:
            while self._server_is_alive(REPORT_S) and self.workers.get(worker.key) is worker:
                if worker.exit_status is not None:
                    return how_it_ended(worker.exit_status)
                if time.monotonic() > deadline_s:
                    return "lost its worker process"
        return ""

    def _drop_server(self) -> None:
        server, self.server = self.server, None
        for worker in self._idle:
            worker.close()
        self._idle = []
        self.workers = {}
        if server is not None:
            server.close()
            self._changed.notify_all()
