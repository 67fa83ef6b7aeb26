"""The worker processes and threads that a config's environments and tools run in.

Each trajectory's environment has a forked process of its own, so one that hangs or dies takes no other with
it. Stateless tools share a pool of processes. Tools that declare `isolate=False` run on threads here.
"""

import asyncio
import pickle
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from verl_lite.errors import EnvironmentFailed, SandboxError
from verl_lite.plugins.environments.binding import Binding
from verl_lite.plugins.environments.worker import Trajectory, build_tools
from verl_lite.plugins.execution.spec import packed
from verl_lite.workers import Answer, SpawnedPool, WorkerPool, WorkerStartError, pool_kind

START_S = 300.0  # the longest that importing and building may take
ADMIT_S = 3600.0  # the longest that a trajectory waits while others have all processes
CALLS_PER_WORKER = 1000
ValueT = TypeVar("ValueT")
_ENTRY = "verl_lite.plugins.environments.worker:prepare"


class Holder(Protocol):
    """A process of a trajectory's own: a pool's Lease."""

    def ask(self, job: bytes, deadline_s: float) -> Answer: ...

    def close(self) -> None: ...


class Processes:
    """Runs what `found` names, in at most `workers` processes for environments and for tools each.

    `debug_inline` runs everything in this process, without deadlines. Raises PluginError and ConfigError for
    what cannot be built or sent to a worker process.
    """

    def __init__(self, found: Binding, *, workers: int, debug_inline: bool) -> None:
        self.binding = found
        self.tools = {tool.name: tool for tool in found.tools}
        self.schemas = [tool.signature().schema for tool in found.tools]
        here = [tool for tool in found.tools if debug_inline or not tool.definition.isolate]
        apart = [tool for tool in found.tools if tool not in here]
        kept = replace(found, tools=tuple(tool for tool in apart if tool.has_state))
        called = replace(found, environment=None, tools=tuple(tool for tool in apart if not tool.has_state))
        self.debug_inline = debug_inline
        self.here = build_tools(replace(found, tools=tuple(here)))
        # a trajectory that was admitted never waits for a process: it may hold others
        most_held = len(kept.tools) + (kept.environment is not None)
        self._admission = threading.BoundedSemaphore(workers)
        self._called = _pool(called, workers)
        self._kept = None if debug_inline else _pool(kept, workers * most_held)
        # as many threads as processes: a call waits for a thread, before its deadline begins
        self._calling = ThreadPoolExecutor(workers, "verl-lite-tools")
        self._asking = ThreadPoolExecutor(workers * max(most_held, 1), "verl-lite-environments")
        self._starting = threading.Lock()
        self._is_ready = False

    def wait_ready(self) -> None:
        """Wait until the workers can start; at once when they could before. Raises EnvironmentFailed."""
        pools = [pool for pool in (self._called, self._kept) if pool is not None]
        with self._starting:
            if self._is_ready:
                return
            for pool in pools:
                pool.start()
            try:
                for tool in self.here.values():
                    tool.prepare()
                for pool in pools:
                    pool.lease(time.monotonic() + START_S).close()
            except (WorkerStartError, SandboxError) as error:
                raise EnvironmentFailed(str(error)) from error
            except TimeoutError:
                raise EnvironmentFailed(f"the workers did not start within {START_S:g} s") from None
            self._is_ready = True

    def close(self) -> None:
        for pool in (self._called, self._kept):
            if pool is not None:
                pool.close()
        for executor in (self._asking, self._calling):
            executor.shutdown(wait=False, cancel_futures=True)
        for tool in self.here.values():
            on_thread(partial(run_to_end, tool.close)).result()

    async def asked(self, function: Callable[[], ValueT]) -> ValueT:
        """A question to a process of a trajectory's own, on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._asking, function)

    async def called(self, job: tuple[object, ...], timeout_s: float) -> Answer:
        """Any process's answer to a stateless tool's call."""
        return await asyncio.get_running_loop().run_in_executor(
            self._calling, lambda: self._call(job, timeout_s)
        )

    def admit(self) -> None:
        """Wait until a trajectory may hold processes; `leave` when it has none any more."""
        if not self._admission.acquire(timeout=ADMIT_S):
            raise EnvironmentFailed(f"no process became free within {ADMIT_S:g} s: raise environment.workers")

    def leave(self) -> None:
        self._admission.release()

    def lease(self) -> Holder:
        """A process, or in debug_inline this one, for an admitted trajectory."""
        if self._kept is None:
            return _Inline(Trajectory(self.binding, {}))
        try:
            return self._kept.lease(time.monotonic() + START_S)
        except TimeoutError:
            raise EnvironmentFailed(f"no process started within {START_S:g} s") from None
        except WorkerStartError as error:
            raise EnvironmentFailed(str(error)) from error

    def _call(self, job: tuple[object, ...], timeout_s: float) -> Answer:
        assert self._called is not None
        return self._called.ask(pickle.dumps(job, 5), time.monotonic() + timeout_s)


def _pool(binding: Binding, workers: int) -> WorkerPool | SpawnedPool | None:
    if binding.environment is None and not binding.tools:
        return None
    named = [f"environment {binding.environment.name!r}"] if binding.environment else []
    names = " and ".join([*named, *(f"tool {tool.name!r}" for tool in binding.tools)])
    spec = packed(binding, name=names, what=names)
    return pool_kind()(
        _ENTRY, spec, size=workers, jobs_per_worker=CALLS_PER_WORKER, is_clean=lambda body: body[:1] == b"\1"
    )


class _Inline:
    """A Lease without a process."""

    def __init__(self, trajectory: Trajectory) -> None:
        self._trajectory = trajectory

    def ask(self, job: bytes, deadline_s: float) -> Answer:
        method, *arguments = pickle.loads(job)
        return Answer("ok", body=b"\1" + pickle.dumps(self._trajectory.answer(method, arguments), 5))

    def close(self) -> None:
        self._trajectory.close_loop()


def run_to_end(close: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(close())


def on_thread(function: Callable[[], ValueT]) -> "Future[ValueT]":
    """Run `function` on a thread of its own: it may wait for others, who must not wait for its thread."""
    future: Future[ValueT] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised to the waiter
            future.set_exception(error)

    threading.Thread(target=run, name="verl-lite-environment", daemon=True).start()
    return future
