"""Reward workers as Ray actors: the driver sends calls, and each actor runs them as a trainer would.

Rewards that may hang (worker processes), wait (async) or need a device (form "batch" in a thread) run on
the actors. Inline rewards stay in the driver: they are declared not to hang, and sending a rollout costs
more than the call. The composite, its breaker and the metrics stay in the driver too. A lost actor is
replaced, and its calls are repeated.
"""

import math
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from verl_lite.engine.cluster.reward_pool import Request, RewardActor, RewardPool, cause_of
from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.errors import RewardError
from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.execution_run import Runner
from verl_lite.plugins.execution.queues import CHUNK_BYTES, CallQueues, pickle_rows
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.runners import place_of
from verl_lite.plugins.execution.spec import spec_of
from verl_lite.plugins.execution.wire import unpack_rows
from verl_lite.plugins.score import Score, ScoreOutcome

CHUNKS_PER_PROCESS = 2  # in flight: one runs, one waits
MAX_THREAD_CALLS = 2  # in flight per actor, of a reward in a thread
POLL_S = 0.5  # how often deadlines are checked
OPEN = 0  # the serial number of an actor's `open` call


@dataclass(frozen=True, slots=True)
class RewardActors:
    """A Scorer's placement on the actors of `cluster.rewards`.

    `ray` must stay initialised while the Scorer is open. After `max_restarts` replacements of one actor,
    scoring stops with a RewardError: a loss never becomes a score.
    """

    ray: Any
    config: ClusterConfig

    def take(self, components: Mapping[int, Component], replaced: Counter[str]) -> Mapping[int, Runner]:
        taken = {
            index: component
            for index, component in components.items()
            if place_of(component.definition) != "inline"
        }
        return dict.fromkeys(taken, _Dispatcher(self.ray, self.config, taken, replaced)) if taken else {}


@dataclass(frozen=True, slots=True)
class _Answer:
    """A finished request; `handle` is the process that was asked, possibly replaced since."""

    actor: RewardActor
    handle: Any
    serial: int  # OPEN, or a key of `in_flight`
    future: Any


Event: TypeAlias = Sequence[Call] | _Answer | None  # calls to make; an answer; the end


class _Dispatcher:
    """A Runner that makes the calls of `components` on the actors, from one thread of the driver."""

    def __init__(
        self, ray: Any, config: ClusterConfig, components: Mapping[int, Component], replaced: Counter[str]
    ) -> None:
        self._ray = ray
        self._config = config
        self._components = components
        self._replaced = replaced
        self._position_of = {index: at for at, index in enumerate(components)}
        self._pool = RewardPool(ray, config, [spec_of(component) for component in components.values()])
        places = {index: place_of(component.definition) for index, component in components.items()}
        self._isolated = [index for index, place in places.items() if place == "process"]
        self._threaded = [index for index, place in places.items() if place == "thread"]
        self._queues = CallQueues(self._isolated)
        self._waiting: dict[int, deque[Call]] = {
            index: deque() for index, place in places.items() if place != "process"
        }
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._serial = OPEN
        self._checked_s = 0.0
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="verl-lite-reward-actors", daemon=True)

    def start(self) -> None:
        """See RewardPool.start."""
        self._pool.start()
        self._thread.start()

    def submit(self, calls: Sequence[Call]) -> None:
        self._events.put(calls)

    def check(self) -> None:
        """Raise the error that stopped the dispatcher, if any."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop the dispatcher and kill all actors."""
        self._events.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._pool.close()

    # ---- everything below runs in the dispatcher's thread

    def _run(self) -> None:
        try:
            while True:
                self._check_deadlines()
                try:
                    event = self._events.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                if event is None:
                    return
                if isinstance(event, _Answer):
                    self._receive(event)
                else:
                    self._enqueue(event)
                self._dispatch()
        except Exception as error:  # noqa: BLE001 - raised by `check` in the waiting thread, never swallowed
            self._failure = error

    def _enqueue(self, calls: Sequence[Call]) -> None:
        self._queues.add([call for call in calls if call.component not in self._waiting])
        for call in calls:
            if call.component in self._waiting:
                self._waiting[call.component] += self._split(call)

    def _split(self, call: Call) -> Sequence[Call]:
        """Split a call whose rows may be scored separately into one call per actor."""
        if not call.may_split:
            return [call]
        size = -(-len(call.rows) // len(self._pool.actors))
        starts = range(0, len(call.rows), size)
        return [Call(call.run, call.component, call.rows[at : at + size], True) for at in starts]

    def _dispatch(self) -> None:
        ready = self._pool.ready
        max_chunks = CHUNKS_PER_PROCESS * self._pool.num_processes
        for num_chunks in range(max_chunks):  # each actor gets its first chunk before any gets its second
            for actor in ready:
                if actor.num_requests(self._isolated) <= num_chunks:
                    calls = self._queues.next_chunk(len(ready) * max_chunks)
                    self._send(actor, calls)
                    if not calls:
                        break
        for component, waiting in self._waiting.items():
            while waiting and (chosen := self._least_loaded(component, ready)) is not None:
                self._send(chosen, [waiting.popleft()])

    def _least_loaded(self, component: int, ready: Sequence[RewardActor]) -> RewardActor | None:
        """The actor with the fewest calls of `component`; None at the limit of concurrent calls."""
        if not ready:
            return None
        chosen = min(ready, key=lambda actor: actor.num_requests([component]))
        if component in self._threaded:
            return chosen if chosen.num_requests([component]) < MAX_THREAD_CALLS else None
        running = sum(actor.num_requests([component]) for actor in ready)
        return chosen if running < self._components[component].definition.max_concurrency else None

    def _send(self, actor: RewardActor, calls: Sequence[Call]) -> None:
        """Send up to about CHUNK_BYTES of the calls as one request; the rest returns to the queue."""
        sent: list[Call] = []
        rows: list[list[bytes]] = []
        size = 0
        for at, call in enumerate(calls):
            if call.answered or call.run.cancelled:
                continue
            pickled = pickle_rows(call)
            if isinstance(pickled, str):
                failed = TimedScore(Score.failed(ScoreOutcome.ERROR, pickled))
                self._complete(call, [failed] * len(call.rows))
                continue
            sent.append(call)
            rows.append(pickled)
            size += sum(map(len, pickled))
            if size > CHUNK_BYTES:
                self._requeue(calls[at + 1 :])
                break
        if not sent:
            return
        self._serial += 1
        serial, component = self._serial, sent[0].component
        actor.in_flight[serial] = Request(component, sent, time.monotonic())
        self._expect(actor, serial, actor.handle.score.remote(self._position_of[component], rows))

    def _expect(self, actor: RewardActor, serial: int, reference: Any) -> None:
        """Make the result of `reference` an event."""
        handle = actor.handle
        reference.future().add_done_callback(
            lambda future: self._events.put(_Answer(actor, handle, serial, future))
        )

    def _receive(self, answer: _Answer) -> None:
        actor, serial = answer.actor, answer.serial
        if answer.handle is not actor.handle:
            return  # from a lost process; its calls were requeued
        try:
            result = answer.future.result()
        except self._ray.exceptions.RayTaskError as error:
            raise cause_of(error) from None
        except self._ray.exceptions.RayError as error:
            self._replace(actor, str(error).strip().splitlines()[0])
            return
        if serial == OPEN:
            actor.is_ready = True
            return
        answers, replaced = result
        request = actor.in_flight.pop(serial)
        self._replaced.update(replaced)
        spent_s = 0.0
        for call, rows in zip(request.calls, answers, strict=True):
            scores = unpack_rows(rows)
            spent_s += math.fsum(timed.latency_s for timed in scores)
            self._complete(call, scores)
        if request.component not in self._waiting:
            self._queues.learn(request.component, spent_s / len(request.calls))

    @staticmethod
    def _complete(call: Call, scores: Sequence[TimedScore]) -> None:
        if not call.answered:
            call.answered = True
            call.run.complete(call.component, call.rows, scores)

    def _check_deadlines(self) -> None:
        """Replace actors with a request past its deadline; fail if the cluster has no room for any actor."""
        now, timeout_s = time.monotonic(), self._config.call_timeout_s
        if now - self._checked_s < POLL_S:
            return
        self._checked_s = now
        for actor in self._pool.actors:
            if any(now - request.sent_s > timeout_s for request in actor.in_flight.values()):
                self._replace(actor, f"no answer within cluster.call_timeout_s={timeout_s:g}")
        self._pool.check_room()

    def _replace(self, actor: RewardActor, why: str) -> None:
        """Kill the actor's process and start another; its calls return to the queue."""
        actor.num_lost += 1
        if actor.num_lost > self._config.max_restarts:
            names = {self._components[request.component].name for request in actor.in_flight.values()}
            raise RewardError(
                f"{actor.name} was lost {actor.num_lost} times, more than cluster.max_restarts="
                f"{self._config.max_restarts}; the last time: {why}. It had calls of "
                f"{', '.join(sorted(names))}"
            )
        self._replaced["actor lost"] += 1
        self._pool.kill(actor)
        requests, actor.in_flight = actor.in_flight, {}
        self._expect(actor, OPEN, self._pool.launch(actor))
        for request in requests.values():
            self._requeue(request.calls)

    def _requeue(self, calls: Sequence[Call]) -> None:
        for call in reversed(calls):
            if call.component in self._waiting:
                self._waiting[call.component].appendleft(call)
            else:
                self._queues.put_back([call])
