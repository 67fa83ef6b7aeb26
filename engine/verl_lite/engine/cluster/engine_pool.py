"""Many engines, one queue of sequences: an engine takes the next sequence when one of its own finishes.

A supervisor thread per engine keeps calls in flight to it. An engine that died, failed or stopped
answering is replaced and gets the current weights, and its unfinished sequences return to the front of
the queue. Beyond `max_restarts` every waiting caller gets one error. Engines are reached through
`RemoteEngine`, so nothing here knows Ray.
"""

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from verl_lite.engine.cluster.sequence_queue import Batch, EngineLoad, Job, SequenceQueue
from verl_lite.engine.rollout.requests import FinishedSequence, QueueStream, SequenceRequest
from verl_lite.engine.types import never_stop
from verl_lite.errors import TrainingError, VerlLiteError

CALLS_IN_FLIGHT = 2  # the engine works on one call while the answer to the other travels


class EngineLost(Exception):
    """A call to an engine will not be answered; the message says why."""


class RemoteEngine(Protocol):
    """An engine in another process. `method` names one of EngineActor's; answers come in call order."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Send a call. Returns a handle for `answer`; raises EngineLost if it cannot be sent."""

    def answer(self, call: Any, *, timeout_s: float) -> Any:
        """Wait for the answer; raises EngineLost if the engine died, failed, or took longer."""

    def kill(self) -> None:
        """Kill its process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """`in_flight` is the most sequences an engine holds (None: twice its slots)."""

    start_timeout_s: float
    call_timeout_s: float
    max_restarts: int
    in_flight: int | None = None

    def max_in_flight(self, num_slots: int) -> int:
        """Sequences beyond the slots wait inside the engine and start at the step that frees a slot.

        Twice the slots: sequences of equal length finish together, before the next call can add more.
        """
        return self.in_flight or 2 * num_slots


@dataclass(slots=True, eq=False)
class _Command:
    """A call for every engine, between two slices; `check` raises on a wrong answer."""

    method: str
    arguments: tuple[Any, ...]
    check: Callable[[Any], Any]
    answers: "queue.SimpleQueue[Any]"


class EnginePool:
    """`start(index)` starts the engine of that index; it is called again for each replacement.

    Thread-safe. Methods raise TrainingError once the restarts are used up.
    """

    def __init__(self, start: Callable[[int], RemoteEngine], *, num_engines: int, limits: PoolLimits) -> None:
        self.limits = limits
        self.start = start
        self.lock = threading.Condition()
        self.batches: list[Batch] = []
        self.current: _Command | None = None  # loaded the newest weights; a replacement runs it first
        self.is_paused = False
        self.error: VerlLiteError | None = None
        self.closed = False
        self.num_restarts = 0
        self.num_requeued = 0
        self.stream_numbers = itertools.count()
        self._supervisors = [_Supervisor(self, index) for index in range(num_engines)]
        self.queue = SequenceQueue([supervisor.load for supervisor in self._supervisors])
        for supervisor in self._supervisors:
            supervisor.thread.start()

    @property
    def num_engines(self) -> int:
        return len(self._supervisors)

    def run(
        self, requests: Sequence[SequenceRequest], *, check: Callable[[], None] = never_stop
    ) -> Iterator[FinishedSequence]:
        """Sample these; yields each as it finishes. Closing the iterator early cancels the rest.

        `check` is called while waiting; an exception from it cancels the rest too.
        """
        with PoolStream(self, check) as stream:
            stream.add(requests)
            while stream.num_unfinished:
                yield from stream.step()

    def open_batch(self, batch: Batch) -> None:
        """Let `batch` know when the pool fails. Raises its error if it has failed."""
        with self.lock:
            self.raise_error()
            self.batches.append(batch)

    def send(self, jobs: Sequence[Job]) -> None:
        """Queue jobs of an open batch."""
        with self.lock:
            self.queue.add(jobs)
            self.lock.notify_all()

    def cancel(self, batch: Batch) -> None:
        """Drop the batch's unfinished jobs."""
        with self.lock:
            self.batches.remove(batch)
            self.queue.cancel(batch)
            self.lock.notify_all()

    def broadcast(
        self,
        method: str,
        *arguments: Any,
        check: Callable[[Any], Any] = lambda answer: answer,
        replay: bool = False,
    ) -> list[Any]:
        """Call every engine between two slices; returns `check(answer)` of each, in any order.

        With `replay` (for new weights) the call and its check are repeated on engines started later.
        """
        command = _Command(method, arguments, check, queue.SimpleQueue())
        with self.lock:
            self.raise_error()
            if replay:
                self.current = command
            for supervisor in self._supervisors:
                supervisor.commands.append(command)
            self.lock.notify_all()
        answers = [command.answers.get() for _ in self._supervisors]
        for answer in answers:
            if isinstance(answer, VerlLiteError):
                raise answer
        return [check(answer) for answer in answers]

    @contextmanager
    def paused(self) -> Iterator[list[RemoteEngine]]:
        """Yields the engines; until exit none steps or is called. Then sequences continue where they were."""
        with self.lock:
            self.raise_error()
            self.is_paused = True
            self.lock.wait_for(lambda: self.error or not any(one.calls for one in self._supervisors))
            ready = [supervisor for supervisor in self._supervisors if supervisor.load.is_ready]
            engines = [supervisor.engine for supervisor in ready if supervisor.engine is not None]
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
        """Raise `error` in every waiting and later call."""
        with self.lock:
            self.error = self.error or error
            for batch in self.batches:
                batch.results.put(self.error)
            for supervisor in self._supervisors:
                for command in supervisor.take_commands():
                    command.answers.put(self.error)
            self.lock.notify_all()

    def may_restart(self) -> bool:
        """Count a lost engine. Returns whether it may be replaced."""
        with self.lock:
            self.num_restarts += 1
            return self.num_restarts <= self.limits.max_restarts

    def close(self) -> None:
        """Kill every engine's process and join every thread."""
        self.closed = True
        self.fail(TrainingError("the rollout engines have been closed"))
        for supervisor in self._supervisors:
            supervisor.kill()
        for supervisor in self._supervisors:
            supervisor.thread.join()


class PoolStream(QueueStream):
    """Sequences of one caller on a pool's engines."""

    def __init__(self, pool: EnginePool, check: Callable[[], None]) -> None:
        super().__init__(check)
        self._pool = pool
        self._prefix = f"{next(pool.stream_numbers)}:"  # an engine has sequences of several streams
        self._batch = Batch(self.results)
        pool.open_batch(self._batch)

    def send(self, requests: Sequence[SequenceRequest]) -> None:
        named = [replace(request, id=self._prefix + request.id) for request in requests]
        self._pool.send([Job(request, self._batch) for request in named])

    def step(self) -> list[FinishedSequence]:
        return [replace(one, id=one.id.removeprefix(self._prefix)) for one in super().step()]

    def drop(self) -> None:
        self._pool.cancel(self._batch)


@dataclass(slots=True, eq=False)
class _Call:
    handle: Any
    command: _Command | None = None


@dataclass(slots=True, eq=False)
class _Supervisor:
    """The thread that keeps one engine busy and replaces it when it is lost."""

    pool: EnginePool
    index: int
    engine: RemoteEngine | None = None
    commands: deque[_Command] = field(default_factory=deque)
    load: EngineLoad = field(default_factory=EngineLoad)
    calls: deque[_Call] = field(default_factory=deque)
    thread: threading.Thread = field(init=False)
    has_started: bool = False

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name=f"engine-{self.index}", daemon=True)

    def kill(self) -> None:
        if self.engine is not None:
            self.engine.kill()

    def take_commands(self) -> list[_Command]:
        """Remove and return the unanswered commands, in order."""
        commands = [call.command for call in self.calls if call.command is not None]
        commands += self.commands
        self.commands.clear()
        self.calls.clear()
        return commands

    def _run(self) -> None:
        pool = self.pool
        while not pool.closed and pool.error is None:
            try:
                self._advance()
            except VerlLiteError as error:
                pool.fail(error)
            except Exception as error:  # noqa: BLE001 a thread's border: waiting callers must get the error
                pool.fail(TrainingError(f"rollout engine {self.index}: {type(error).__name__}: {error}"))
        self.kill()

    def _advance(self) -> None:
        try:
            if self.engine is None:
                self._start()
            self._one_call()
        except EngineLost as lost:
            self._handle_loss(lost)

    def _start(self) -> None:
        pool = self.pool
        self.engine = pool.start(self.index)
        if pool.closed:  # close() may have come too early to see this engine
            return
        engine = self.engine.answer(self.engine.call("describe"), timeout_s=pool.limits.start_timeout_s)
        self.load.num_slots = engine["num_slots"]
        self.load.max_in_flight = pool.limits.max_in_flight(self.load.num_slots)
        with pool.lock:
            current = pool.current
        if current is not None:
            call = self.engine.call(current.method, *current.arguments)
            current.check(self.engine.answer(call, timeout_s=pool.limits.call_timeout_s))
        self.load.is_ready = self.has_started = True

    def _one_call(self) -> None:
        """Keep the engine busy, then receive its oldest answer."""
        assert self.engine is not None
        self._send_calls(self.engine)
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
                job = self.load.in_flight.pop(finished.id, None)
                if job is not None:
                    job.batch.results.put(finished)

    def _send_calls(self, engine: RemoteEngine) -> None:
        """Wait until there is work, and send it."""
        pool = self.pool
        with pool.lock:
            pool.lock.wait_for(lambda: self.calls or self._has_work() or pool.closed or pool.error)
            if pool.closed or pool.error:
                return
            while len(self.calls) < CALLS_IN_FLIGHT and self._has_work():
                if self.commands:
                    command = self.commands[0]
                    self.calls.append(_Call(engine.call(command.method, *command.arguments), command))
                    self.commands.popleft()
                else:
                    aborts = pool.queue.take_aborts(self.load)
                    requests = [job.request for job in pool.queue.take(self.load)]
                    self.calls.append(_Call(engine.call("advance", requests, aborts)))

    def _has_work(self) -> bool:
        load, pool = self.load, self.pool
        return not pool.is_paused and bool(
            self.commands or load.in_flight or load.stolen or pool.queue.has_work_for(load)
        )

    def _handle_loss(self, lost: EngineLost) -> None:
        """Kill the engine; its sequences return to the queue, its commands go to the replacement."""
        pool = self.pool
        with pool.lock:
            engine, self.engine, self.load.is_ready = self.engine, None, False
        if engine is not None:
            engine.kill()
        with pool.lock:
            if pool.closed or pool.error:
                return
            pool.num_requeued += pool.queue.requeue(self.load)
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
