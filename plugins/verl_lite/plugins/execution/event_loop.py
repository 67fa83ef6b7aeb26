"""Async rewards: one event loop in one thread, and a bounded number of calls at a time per component."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.batcher import Call, Rows
from verl_lite.plugins.execution.calls import backoff_s, bind, checked_answers, failed_score
from verl_lite.plugins.execution.inline import InlineRunner, private_copy
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome, to_score

GRACE_S = 0.5  # a call this far past its deadline that could not even be cancelled blocks the loop
END_S = 2.0  # how long `close` waits for calls that were cancelled


class _AsyncCaller:
    """An async reward with its options. Every failure is a score, as for synchronous rewards."""

    def __init__(self, component: Component, *, enforce_deadline: bool = True) -> None:
        self._component = component
        self._wait_s = component.timeout_s if enforce_deadline else None
        self._bound: Any = None

    async def answer(self, rollouts: Sequence[Rollout]) -> list[TimedScore]:
        """One score per rollout; the call and its retries are cancelled at the deadline."""
        started = time.perf_counter()
        attempts = [0]
        owner = asyncio.current_task()
        assert owner is not None
        task = asyncio.create_task(self._tries(rollouts, started, attempts), name=owner.get_name())
        done, _ = await asyncio.wait({task}, timeout=self._wait_s)
        if done and task.cancelled():
            reason = "CancelledError: the reward cancelled its own task"
            scores = [Score.failed(ScoreOutcome.ERROR, reason)] * len(rollouts)
        elif done:
            scores = task.result()
        else:
            task.cancel()  # not awaited: a reward may swallow the cancellation
            reason = f"no answer within {self._wait_s:g} s; the call was cancelled"
            scores = [_late(self._component, reason)] * len(rollouts)
        share_s = (time.perf_counter() - started) / len(rollouts)
        return [TimedScore(score, share_s, attempts[0]) for score in scores]

    async def _tries(self, rollouts: Sequence[Rollout], started: float, attempts: list[int]) -> list[Score]:
        definition = self._component.definition
        while True:
            attempts[0] += 1
            try:
                return await self._call(rollouts)
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001
                # The border: see calls.py. Ctrl-C reaches the main thread only, so it was raised by hand.
                may_retry = isinstance(error, definition.retry_on) and attempts[0] <= definition.max_retries
                pause_s = backoff_s(attempts[0])
                if not may_retry or time.perf_counter() - started + pause_s >= self._component.timeout_s:
                    return [failed_score(error, definition=definition)] * len(rollouts)
                await asyncio.sleep(pause_s)

    async def _call(self, rollouts: Sequence[Rollout]) -> list[Score]:
        if self._bound is None:
            self._bound = bind(self._component.definition, self._component.options)
        if self._component.definition.form == "rollout":
            return [to_score(await self._bound(rollouts[0]))]
        answer = await self._bound(rollouts)
        return checked_answers(answer, len(rollouts), self._component.definition)


def _late(component: Component, reason: str) -> Score:
    outcome = ScoreOutcome.ERROR if component.definition.is_remote else ScoreOutcome.TIMEOUT
    return Score.failed(outcome, reason)


class DebugAsyncRunner(InlineRunner):
    """For `debug_inline`: each call in the calling thread, one after another, without a deadline."""

    def __init__(self, component: Component) -> None:
        self._async_caller = _AsyncCaller(component, enforce_deadline=False)

    def run(self, calls: Sequence[Rows], rollouts: Sequence[Rollout]) -> list[TimedScore]:
        async def answer_all() -> list[TimedScore]:
            scores: list[TimedScore] = []
            for rows in calls:
                scores += await self._async_caller.answer([private_copy(rollouts[row]) for row in rows])
            return scores

        return asyncio.run(answer_all())


class EventLoopRunner:
    """Runs the calls of the async `components` (index in the execution -> component).

    A reward that blocks the loop (a plain `time.sleep`, a synchronous request) is detected when its
    deadline passes: its row is a "timeout", its loop is abandoned, and the other calls move to a new one.
    """

    def __init__(self, components: dict[int, Component]) -> None:
        self._components = components
        self._loop = _Loop(components)

    def start(self) -> None:
        self._loop.start()

    def submit(self, calls: Sequence[Call]) -> None:
        self._loop.submit(calls)

    def check(self) -> None:
        """Raise the loop's own failure, if any; replace a blocked loop."""
        if self._loop.failure is not None:
            raise self._loop.failure
        blocking = self._loop.blocking_call()
        if blocking is None:
            return
        blocked, self._loop = self._loop, _Loop(self._components)
        self._loop.start()
        others = blocked.abandon(blocking)
        self._loop.submit(others)
        timeout_s = self._components[blocking.component].timeout_s
        reason = f"no answer within {timeout_s:g} s; it blocks the event loop instead of awaiting"
        late = _late(self._components[blocking.component], reason)
        timed = TimedScore(late, timeout_s / len(blocking.rows))
        blocking.run.complete(blocking.component, blocking.rows, [timed] * len(blocking.rows))

    def close(self) -> None:
        self._loop.close()


class _Loop:
    def __init__(self, components: dict[int, Component]) -> None:
        self._components = components
        self._callers = {index: _AsyncCaller(component) for index, component in components.items()}
        self._free = {index: component.definition.max_concurrency for index, component in components.items()}
        self._waiting: dict[int, deque[Call]] = {index: deque() for index in components}
        self._active: dict[asyncio.Task[None], tuple[Call, float]] = {}  # and when it began
        self._lock = threading.Lock()  # a call is answered by this loop or taken over by `abandon`
        self._abandoned = False
        self.failure: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="verl-lite-async-rewards", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, calls: Sequence[Call]) -> None:
        self._loop.call_soon_threadsafe(self._enqueue, calls)

    def blocking_call(self) -> Call | None:
        """The call that has blocked the loop past its deadline, if there is one."""
        task = asyncio.current_task(self._loop)
        active = dict(self._active)
        owner = next((own for own in active if task is not None and task.get_name() == own.get_name()), None)
        if owner is None:
            return None
        call, began_s = active[owner]
        late_s = time.monotonic() - began_s - self._components[call.component].timeout_s
        return call if late_s > GRACE_S and asyncio.current_task(self._loop) is task else None

    def abandon(self, blocking: Call) -> list[Call]:
        """Give up this loop. Returns the calls it has not answered, except the one that blocks it."""
        with self._lock:
            self._abandoned = True
            calls = [call for call, _ in list(self._active.values()) if call is not blocking]
            for waiting in self._waiting.values():
                calls += waiting
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)  # in case the call returns later
        return [call for call in calls if not call.answered]

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(END_S)
        elif not self._loop.is_running():
            self._loop.close()  # it was never started

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left, timeout=END_S))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _enqueue(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._waiting[call.component].append(call)
        for component in {call.component for call in calls}:
            self._start_some(component)

    def _start_some(self, component: int) -> None:
        waiting = self._waiting[component]
        while waiting and self._free[component]:
            self._free[component] -= 1
            call = waiting.popleft()
            task = self._loop.create_task(self._answer(call))
            self._active[task] = call, time.monotonic()  # also keeps it: the loop holds its tasks weakly
            task.add_done_callback(self._active.pop)

    async def _answer(self, call: Call) -> None:
        try:
            if not call.run.cancelled:
                rollouts = [private_copy(call.run.rollouts[row]) for row in call.rows]
                scores = await self._callers[call.component].answer(rollouts)
                with self._lock:
                    if self._abandoned:
                        return
                    call.answered = True
                call.run.complete(call.component, call.rows, scores)
        except Exception as error:  # noqa: BLE001 - raised in `finish`
            self.failure = error
        finally:
            self._free[call.component] += 1
            # A call that swallowed its cancellation ends here once it is collected, long after the loop.
            if not self._abandoned and not self._loop.is_closed():
                self._start_some(call.component)
