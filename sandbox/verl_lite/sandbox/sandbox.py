"""`Sandbox`: run untrusted programs, from any thread."""

import os
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from verl_lite.errors import SandboxError
from verl_lite.sandbox._payload import check_file_names
from verl_lite.sandbox._worker import PythonRequest, Worker
from verl_lite.sandbox.limits import Limits, Result, Status

DEFAULT_LIMITS = Limits()
# Loaded once in the fork server, so that programs importing them start at once.
PRELOAD = [
    "ast",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "io",
    "itertools",
    "json",
    "math",
    "operator",
    "os",
    "random",
    "re",
    "statistics",
    "string",
    "struct",
    "sys",
    "textwrap",
    "time",
    "typing",
]


class Sandbox:
    """Runs each program in a process, namespaces and a file system of its own.

    `workers` programs run at once (one a core by default), each from a fork server of its own.
    Raises SandboxError, naming what is missing, where programs cannot be isolated.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._num_workers = workers or len(os.sched_getaffinity(0))
        self._options: dict[str, Any] = {"paths": [], "network_per_run": False, "preload": PRELOAD}
        self._idle: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        self._busy: set[Worker] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._threads = ThreadPoolExecutor(self._num_workers, "verl-lite-sandbox")
        for _ in range(self._num_workers):
            self._idle.put(None)
        self._idle.get()
        self._idle.put(Worker(self._options))  # refuses now, not at the first run

    def run_python(
        self,
        source: str,
        *,
        stdin: bytes | str = b"",
        files: Mapping[str, bytes] | None = None,
        args: Sequence[str] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> Result:
        """Run `source` as a Python program and wait for it."""
        request = _request(source, stdin, files or {}, args, limits)
        return self._run(request)

    def submit_python(
        self,
        source: str,
        *,
        stdin: bytes | str = b"",
        files: Mapping[str, bytes] | None = None,
        args: Sequence[str] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> "Future[Result]":
        """As `run_python`, without waiting."""
        return self._threads.submit(self._run, _request(source, stdin, files or {}, args, limits))

    def close(self) -> None:
        """Kill every run and end the fork servers."""
        with self._lock:
            self._closed = True
            busy = list(self._busy)
        for worker in busy:
            worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        while not self._idle.empty():
            worker_or_none = self._idle.get()
            if worker_or_none is not None:
                worker_or_none.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, request: PythonRequest) -> Result:
        if self._closed:
            raise SandboxError("this Sandbox is closed: open another one")
        worker = self._idle.get()
        try:
            if worker is None or not worker.alive:
                worker = Worker(self._options)
            with self._lock:
                self._busy.add(worker)
            result = worker.run(request, 1)
            if self._closed:
                return Result(status=Status.KILLED, message="the Sandbox was closed")
            return result
        finally:
            with self._lock:
                if worker is not None:
                    self._busy.discard(worker)
            self._idle.put(worker)


def _request(
    source: str, stdin: bytes | str, files: Mapping[str, bytes], args: Sequence[str], limits: Limits
) -> PythonRequest:
    check_file_names(files)
    given = stdin.encode() if isinstance(stdin, str) else stdin
    # surrogates: a model's text may hold halves of characters; Python then reports a syntax error
    return PythonRequest(source.encode("utf-8", "surrogatepass"), given, dict(files), list(args), limits)
