"""The backend for Python: our own fork servers. Needs no helper program and no privileges."""

import itertools
import os
import queue
import threading
from collections.abc import Sequence

from verl_lite.errors import SandboxError
from verl_lite.sandbox._worker import Worker
from verl_lite.sandbox.backend import Request
from verl_lite.sandbox.limits import Result, Status

# Loaded once in the fork server, so that programs import them at once. Every run copies pages of each, so
# modules that few programs need are left out.
PRELOADED_MODULES = """
ast bisect collections contextlib copy dataclasses decimal enum fractions functools heapq io itertools
json linecache math operator random re string textwrap traceback typing
"""


class NativeBackend:
    """A pool of fork servers, each running one program at a time."""

    name = "native"
    namespaces = True
    isolated = True
    languages = frozenset({"python"})

    def __init__(
        self,
        workers: int,
        *,
        read_only_paths: Sequence[str],
        network_per_run: bool,
        libraries: Sequence[str] = (),
    ) -> None:
        self._options = {
            "namespaces": self.namespaces,
            "paths": list(read_only_paths),
            "network_per_run": network_per_run,
            "preload": PRELOADED_MODULES.split(),
            "libraries": list(libraries),
        }
        self._num_workers = workers
        self._lock = threading.Lock()
        self._run_ids = itertools.count(1)
        self._closed = False
        self._start_pool()
        self._release(self._acquire())  # raises now, not at the first run

    def run(self, request: Request) -> Result:
        """Run one program on a free fork server; waits while all are busy."""
        if os.getpid() != self._owner_pid:
            self._reset_after_fork()
        worker = self._acquire()
        run_id = next(self._run_ids)
        try:
            request.cancel_token.attach(lambda: worker.cancel(run_id))
            result = worker.run(request, run_id)
        finally:
            request.cancel_token.detach()
            self._release(worker)
        if self._closed:
            return Result(status=Status.KILLED, message="the Sandbox was closed")
        return result

    def close(self) -> None:
        with self._lock:
            self._closed = True
            workers = [*self._busy]
        for worker in workers:
            worker.kill()
        for _ in range(self._num_workers):
            idle = self._slots.get()
            if idle is not None:
                idle.kill()

    def _start_pool(self) -> None:
        self._owner_pid = os.getpid()
        self._busy: set[Worker] = set()
        self._slots: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(self._num_workers):
            self._slots.put(None)  # the fork server starts when its slot is first used

    def _reset_after_fork(self) -> None:
        """In a forked child: leave the fork servers to the parent and start with none."""
        abandoned = list(self._busy)
        while not self._slots.empty():
            worker = self._slots.get()
            abandoned += [worker] if worker is not None else []
        for worker in abandoned:
            worker.disown()
        self._lock = threading.Lock()  # a thread of the parent may have held it
        self._start_pool()

    def _acquire(self) -> Worker:
        slot = self._slots.get()
        try:
            if self._closed:
                raise SandboxError("this Sandbox is closed: open another one")
            if slot is not None and not slot.alive:  # it ended while it had nothing to do
                slot.kill()
                slot = None
            worker = slot or Worker(self._options)
        except BaseException:
            self._slots.put(None)
            raise
        with self._lock:
            self._busy.add(worker)
        return worker

    def _release(self, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
        if worker.closed:
            worker.kill()  # reap it
        self._slots.put(None if worker.closed else worker)


class LandlockBackend(NativeBackend):
    """The same without namespaces: weaker, for where none is allowed, and only for those who ask for it."""

    name = "landlock"
    namespaces = False
