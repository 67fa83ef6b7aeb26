"""Many engines, one queue of sequences: each engine takes the next when one of its own has ended.

A thread an engine keeps calls under way to it and answers its faults: an engine that died, failed or
went silent is replaced, gets the weights the others have, and its unfinished sequences go back to the
front of the queue. Beyond `max_restarts` everyone who waits gets one error. Engines are reached through
`RemoteEngine`, so nothing here knows Ray.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from verl_lite.engine.cluster.sequence_queue import Batch, Job, SequenceQueue, Share
from verl_lite.engine.rollout.requests import FinishedSequence, SequenceRequest
from verl_lite.engine.rundir.interrupt import next_of
from verl_lite.engine.types import never_stop
from verl_lite.errors import TrainingError, VerlLiteError

__all__ = ["EngineLost", "EnginePool", "PoolLimits", "RemoteEngine"]

CALLS_UNDER_WAY = 2  # while one answer travels, the engine works on the next call


class EngineLost(Exception):
    """A call to an engine has no answer and will not get one; says why."""


class RemoteEngine(Protocol):
    """An engine somewhere else; `method` is one of EngineActor's, answered in the order of the calls.

    The answer to "describe" says how many sequences it works on at once: its "places".
    """

    def call(self, method: str, *arguments: Any) -> Any:
        """Begin a call; returns what `answer` takes. Raises EngineLost when that cannot even begin."""
        ...

    def answer(self, call: Any, *, timeout_s: float) -> Any:
        """Wait for the answer; raises EngineLost when the engine died, failed, or took longer."""
        ...

    def kill(self) -> None:
        """End its process, whatever state it is in."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """`in_flight` sequences at most per engine (None: twice as many as it has places)."""

    start_timeout_s: float
    call_timeout_s: float
    max_restarts: int
    in_flight: int | None = None

    def in_flight_of(self, num_places: int) -> int:
        """Those beyond an engine's places wait there, to begin at the very step at which a place is free.

        As many again, since sequences of one length end together, and before the next call brings new ones.
        """
        return self.in_flight or 2 * num_places


@dataclass(slots=True, eq=False)
class _Command:
    """A call that every engine gets once, in its turn between slices; `check` raises at a wrong answer."""

    method: str
    arguments: tuple[Any, ...]
    check: Callable[[Any], Any]
    answers: "queue.SimpleQueue[Any]"


class EnginePool:
    """`start(index)` begins the engine of that place; it is called again for each replacement.

    All methods may be called from any thread. Raises TrainingError once the engines cannot be kept up.
    """

    def __init__(self, start: Callable[[int], RemoteEngine], *, num_engines: int, limits: PoolLimits) -> None:
        self.limits = limits
        self.start = start
        self.lock = threading.Condition()
        self.batches: list[Batch] = []
        self.current: _Command | None = None  # the newest weights: what a replacement is given first
        self.is_paused = False
        self.error: VerlLiteError | None = None
        self.closed = False
        self.num_restarts = 0
        self.num_requeued = 0
        self._slots = [_Slot(self, index) for index in range(num_engines)]
        self.queue = SequenceQueue([slot.share for slot in self._slots])
        for slot in self._slots:
            slot.thread.start()

    @property
    def num_engines(self) -> int:
        return len(self._slots)

    def run(
        self, requests: Sequence[SequenceRequest], *, check: Callable[[], None] = never_stop
    ) -> Iterator[FinishedSequence]:
        """Have these sampled; yields each as it ends. Closing the iterator early gives the rest up.

        `check` is called meanwhile; what it raises ends the wait, as closing would.
        """
        batch = Batch(queue.SimpleQueue())
        with self.lock:
            self.raise_error()
            self.batches.append(batch)
            self.queue.add(Job(request, batch) for request in requests)
            self.lock.notify_all()
        try:
            for _ in requests:
                answer = next_of(batch.answers, check)
                if isinstance(answer, VerlLiteError):
                    raise answer
                yield answer
        finally:
            with self.lock:
                self.batches.remove(batch)
                self.queue.close(batch)
                self.lock.notify_all()

    def each(
        self,
        method: str,
        *arguments: Any,
        check: Callable[[Any], Any] = lambda answer: answer,
        keep: bool = False,
    ) -> list[Any]:
        """Call every engine between two slices; returns what `check` makes of the answers, in any order.

        With `keep` the call and its check are repeated on engines started later: it brings the weights.
        """
        command = _Command(method, arguments, check, queue.SimpleQueue())
        with self.lock:
            self.raise_error()
            if keep:
                self.current = command
            for slot in self._slots:
                slot.commands.append(command)
            self.lock.notify_all()
        answers = [command.answers.get() for _ in self._slots]
        for answer in answers:
            if isinstance(answer, VerlLiteError):
                raise answer
        return [check(answer) for answer in answers]

    @contextmanager
    def paused(self) -> Iterator[list[RemoteEngine]]:
        """The engines, none of which steps or is called until the end; sequences go on where they were."""
        with self.lock:
            self.raise_error()
            self.is_paused = True
            self.lock.wait_for(lambda: self.error or not any(slot.calls for slot in self._slots))
            engines = [slot.engine for slot in self._slots if slot.share.is_ready and slot.engine is not None]
        try:
            self.raise_error()
            yield engines
        finally:
            with self.lock:
                self.is_paused = False
                self.lock.notify_all()

    def raise_error(self) -> None:
        if self.error is not None:
            raise self.error

    def fail(self, error: VerlLiteError) -> None:
        """Everyone who waits, and everyone who comes, gets `error`."""
        with self.lock:
            self.error = self.error or error
            for batch in self.batches:
                batch.answers.put(self.error)
            for slot in self._slots:
                for command in slot.take_commands():
                    command.answers.put(self.error)
            self.lock.notify_all()

    def may_restart(self) -> bool:
        """Count one more lost engine; False when that was one too many."""
        with self.lock:
            self.num_restarts += 1
            return self.num_restarts <= self.limits.max_restarts

    def close(self) -> None:
        """End every engine's process and every thread."""
        self.closed = True
        self.fail(TrainingError("the rollout engines have been closed"))
        for slot in self._slots:
            slot.kill()
        for slot in self._slots:
            slot.thread.join()


@dataclass(slots=True, eq=False)
class _Call:
    handle: Any
    command: _Command | None = None


@dataclass(slots=True, eq=False)
class _Slot:
    """The place of one engine: the thread that keeps it busy and replaces it."""

    pool: EnginePool
    index: int
    engine: RemoteEngine | None = None
    commands: deque[_Command] = field(default_factory=deque)
    share: Share = field(default_factory=Share)
    calls: deque[_Call] = field(default_factory=deque)
    thread: threading.Thread = field(init=False)
    has_started: bool = False

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._serve, name=f"engine-{self.index}", daemon=True)

    def kill(self) -> None:
        if self.engine is not None:
            self.engine.kill()

    def take_commands(self) -> list[_Command]:
        """Those without an answer, in order; they are the caller's now."""
        commands = [call.command for call in self.calls if call.command is not None]
        commands += self.commands
        self.commands.clear()
        self.calls.clear()
        return commands

    def _serve(self) -> None:
        pool = self.pool
        while not pool.closed and pool.error is None:
            try:
                self._go_on()
            except VerlLiteError as error:
                pool.fail(error)
            except Exception as error:  # noqa: BLE001 a thread's border: those who wait must hear of it
                pool.fail(TrainingError(f"rollout engine {self.index}: {type(error).__name__}: {error}"))
        self.kill()

    def _go_on(self) -> None:
        try:
            if self.engine is None:
                self._start()
            self._one_call()
        except EngineLost as lost:
            self._lose(lost)

    def _start(self) -> None:
        pool = self.pool
        self.engine = pool.start(self.index)
        if pool.closed:  # close() may have come too early to see this engine
            return
        engine = self.engine.answer(self.engine.call("describe"), timeout_s=pool.limits.start_timeout_s)
        self.share.places = engine["places"]
        self.share.in_flight = pool.limits.in_flight_of(self.share.places)
        with pool.lock:
            current = pool.current
        if current is not None:
            call = self.engine.call(current.method, *current.arguments)
            current.check(self.engine.answer(call, timeout_s=pool.limits.call_timeout_s))
        self.share.is_ready = self.has_started = True

    def _one_call(self) -> None:
        """Keep the engine busy, then take the oldest answer in."""
        assert self.engine is not None
        self._begin_calls(self.engine)
        if not self.calls:
            return
        answer = self.engine.answer(self.calls[0].handle, timeout_s=self.pool.limits.call_timeout_s)
        with self.pool.lock:
            if not self.calls:  # the pool has failed meanwhile
                return
            command = self.calls.popleft().command
            if self.pool.is_paused:
                self.pool.lock.notify_all()
            if command is not None:
                command.answers.put(answer)
                return
            for finished in answer:
                job = self.share.running.pop(finished.id, None)
                if job is not None:
                    job.batch.answers.put(finished)

    def _begin_calls(self, engine: RemoteEngine) -> None:
        """Wait until there is something to do, and begin it."""
        pool = self.pool
        with pool.lock:
            pool.lock.wait_for(lambda: self.calls or self._has_work() or pool.closed or pool.error)
            if pool.closed or pool.error:
                return
            while len(self.calls) < CALLS_UNDER_WAY and self._has_work():
                if self.commands:
                    command = self.commands[0]
                    self.calls.append(_Call(engine.call(command.method, *command.arguments), command))
                    self.commands.popleft()
                else:
                    given_up = pool.queue.give_up(self.share)
                    requests = [job.request for job in pool.queue.take(self.share)]
                    self.calls.append(_Call(engine.call("advance", requests, given_up)))

    def _has_work(self) -> bool:
        share, pool = self.share, self.pool
        return not pool.is_paused and bool(
            self.commands or share.running or share.given_away or pool.queue.has_some_for(share)
        )

    def _lose(self, lost: EngineLost) -> None:
        """Bury the engine; what it had goes back: sequences to the queue, commands to the next engine."""
        pool = self.pool
        with pool.lock:
            engine, self.engine, self.share.is_ready = self.engine, None, False
        if engine is not None:
            engine.kill()
        with pool.lock:
            if pool.closed or pool.error:
                return
            pool.num_requeued += pool.queue.put_back(self.share)
            self.commands.extend(self.take_commands())
            pool.lock.notify_all()
        if not self.has_started:
            pool.fail(TrainingError(f"rollout engine {self.index} did not start: it {lost}"))
        elif not pool.may_restart():
            pool.fail(
                TrainingError(
                    f"rollout engine {self.index} {lost}. That is loss {pool.num_restarts} of an engine "
                    f"in this run, cluster.max_restarts={pool.limits.max_restarts} allows no more"
                )
            )
