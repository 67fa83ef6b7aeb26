"""The backend for Python: fork servers of our own, no helper program and no privileges needed."""

import itertools
import os
import queue
import threading
from collections.abc import Sequence

from verl_lite.errors import SandboxError
from verl_lite.sandbox._worker import Worker
from verl_lite.sandbox.backend import Request
from verl_lite.sandbox.limits import Result, Status

# Loaded once in the fork server, so that programs importing them start at once. Each costs every run the
# copying of its pages, so those are left out that few programs need.
PRELOADED_MODULES = """
ast bisect collections contextlib copy dataclasses decimal enum fractions functools heapq io itertools
json linecache math operator random re string textwrap traceback typing
"""


class NativeBackend:
    """A pool of fork servers, each running one program at a time."""

    name = "native"
    isolated = True
    languages = frozenset({"python"})

    def __init__(self, workers: int, *, read_only_paths: Sequence[str], network_per_run: bool) -> None:
        self._options = {
            "paths": list(read_only_paths),
            "network_per_run": network_per_run,
            "preload": PRELOADED_MODULES.split(),
        }
        self._num_workers = workers
        self._lock = threading.Lock()
        self._run_ids = itertools.count(1)
        self._closed = False
        self._start_pool()
        self._release(self._borrow())  # refuses now, not at the first run

    def run(self, request: Request) -> Result:
        """Run one program on a free fork server, waiting for one if all are busy."""
        if os.getpid() != self._owner_pid:
            self._leave_to_parent()
        worker = self._borrow()
        run_id = next(self._run_ids)
        try:
            request.ticket.attach(lambda: worker.cancel(run_id))
            result = worker.run(request, run_id)
        finally:
            request.ticket.detach()
            self._release(worker)
        if self._closed:
            return Result(status=Status.KILLED, message="the Sandbox was closed")
        return result

    def close(self) -> None:
        """Kill all fork servers, and with them every run."""
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
            self._slots.put(None)  # a fork server is started when its slot is first used

    def _leave_to_parent(self) -> None:
        """In a forked child: the fork servers are the parent's, so start with none."""
        abandoned = list(self._busy)
        while not self._slots.empty():
            worker = self._slots.get()
            abandoned += [worker] if worker is not None else []
        for worker in abandoned:
            worker.abandon()
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self._start_pool()

    def _borrow(self) -> Worker:
        slot = self._slots.get()
        try:
            if self._closed:
                raise SandboxError("this Sandbox is closed: open another one")
            worker = slot if slot is not None and slot.alive else Worker(self._options)
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
