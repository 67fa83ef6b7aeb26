"""Reward workers as Ray actors: the driver hands out calls, each actor runs them as a trainer would.

What may hang (worker processes), waits (async) or needs a device (form "batch" in a thread) goes to
the actors. Rewards of the calling thread stay in the driver: their authors say that they cannot hang,
and sending a rollout costs more than such a call. The composite, its breaker and the metrics never
leave the driver. An actor that is lost is replaced and its calls are made again.
"""

import contextlib
import math
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.errors import ConfigError, RewardError, VerlLiteError
from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.execution_run import Runner
from verl_lite.plugins.execution.host import HostAnswer, RewardHost
from verl_lite.plugins.execution.queues import CHUNK_BYTES, CallQueues, pickle_rows
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.runners import place_of
from verl_lite.plugins.execution.spec import RewardSpec, spec_of
from verl_lite.plugins.execution.wire import unpack_rows
from verl_lite.plugins.score import Score, ScoreOutcome

__all__ = ["RewardActors"]

CHUNKS_AHEAD = 2  # an actor has so many chunks for each of its processes: one runs, one waits
THREAD_CALLS = 2  # and so many calls of a reward in a thread
LOOK_S = 0.5  # how often actors that say nothing are looked at
CLOSE_S = 5.0
OPENING = 0
MAX_REQUESTS = 1000  # of one actor at the same time: threads of the actor, made when needed


class RewardActors:
    """The placement that a Scorer takes: `count` actors with `cpus` worker processes each.

    `ray` is initialised and stays so while the Scorer is open. An actor is replaced at most
    `max_restarts` times, then scoring stops with a RewardError: a loss never becomes a score.
    """

    def __init__(self, ray: Any, config: ClusterConfig) -> None:
        self._ray = ray
        self._config = config

    def take(self, components: Mapping[int, Component], replaced: Counter[str]) -> Mapping[int, Runner]:
        taken = {
            index: component
            for index, component in components.items()
            if place_of(component.definition) != "inline"
        }
        return dict.fromkeys(taken, _Dispatcher(self._ray, self._config, taken, replaced)) if taken else {}


class _HostActor:
    """What runs in the actor. `open` is apart from the constructor so that its errors keep their type."""

    def __init__(self, specs: Sequence[RewardSpec], workers: int) -> None:
        self._specs, self._workers = specs, workers

    def open(self) -> None:
        self._host = RewardHost(self._specs, workers=self._workers)

    def score(self, component: int, calls: Sequence[Sequence[bytes]]) -> HostAnswer:
        return self._host.score(component, calls)

    def close(self) -> None:
        self._host.close()


@dataclass(slots=True)
class _Given:
    component: int
    calls: list[Call]
    sent_s: float


@dataclass(slots=True, eq=False)
class _Actor:
    """One place of an actor. `given` are its requests by serial; `began_s` is when it was asked for."""

    name: str
    handle: Any = None
    is_ready: bool = False
    began_s: float = 0.0
    num_lost: int = 0
    given: dict[int, _Given] = field(default_factory=dict)

    def requests(self, components: Iterable[int]) -> int:
        wanted = set(components)
        return sum(given.component in wanted for given in self.given.values())


@dataclass(frozen=True, slots=True)
class _Answer:
    """The end of a request; `handle` is the actor that was asked, which may have been replaced since."""

    actor: _Actor
    handle: Any
    serial: int  # OPENING, or a key of `given`
    future: Any


Event: TypeAlias = Sequence[Call] | _Answer | None  # calls to make; an answer; the end


class _Dispatcher:
    """Runs the calls of `components` on the actors; a Runner. One thread of the driver does it all."""

    def __init__(
        self, ray: Any, config: ClusterConfig, components: Mapping[int, Component], replaced: Counter[str]
    ) -> None:
        self._ray = ray
        self._config = config
        self._components = components
        self._replaced = replaced
        self._position_of = {index: at for at, index in enumerate(components)}
        self._specs = [spec_of(component) for component in components.values()]
        self._num_processes = max(1, int(config.rewards.cpus))
        places = {index: place_of(component.definition) for index, component in components.items()}
        self._isolated = [index for index, place in places.items() if place == "process"]
        self._threaded = [index for index, place in places.items() if place == "thread"]
        self._queues = CallQueues(self._isolated)
        self._waiting: dict[int, deque[Call]] = {
            index: deque() for index, place in places.items() if place != "process"
        }
        self._actors = [_Actor(f"reward worker {at}") for at in range(config.rewards.count)]
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._serial = OPENING
        self._looked_s = 0.0
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="verl-lite-reward-actors", daemon=True)

    def start(self) -> None:
        """Start the actors; raises PluginError for rewards they cannot load, ConfigError without room."""
        for actor in self._actors:
            self._launch(actor)
        ready = {actor.handle.open.remote(): actor for actor in self._actors}
        done, late = self._ray.wait(
            list(ready), num_returns=len(ready), timeout=self._config.start_timeout_s, fetch_local=False
        )
        for reference in done:
            try:
                self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from None
            except self._ray.exceptions.RayError as error:
                raise RewardError(f"{ready[reference].name} did not start: {error}") from None
            ready[reference].is_ready = True
        if late:
            raise ConfigError(self._no_room(len(late)))
        self._thread.start()

    def submit(self, calls: Sequence[Call]) -> None:
        self._events.put(calls)

    def check(self) -> None:
        """Raise what ended the dispatcher, if anything did."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End all actors with what runs in them."""
        self._events.put(None)
        if self._thread.is_alive():
            self._thread.join()
        ending = [actor.handle.close.remote() for actor in self._actors if actor.is_ready]
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.wait(ending, num_returns=len(ending), timeout=CLOSE_S) if ending else None
        for actor in self._actors:
            self._kill(actor)

    def _launch(self, actor: _Actor) -> None:
        rewards = self._config.rewards
        remote = self._ray.remote(
            num_cpus=rewards.cpus,
            num_gpus=rewards.gpus,
            max_concurrency=MAX_REQUESTS,
            scheduling_strategy="SPREAD",
        )(_HostActor)
        actor.handle = remote.remote(self._specs, self._num_processes)
        actor.is_ready, actor.began_s = False, time.monotonic()

    def _kill(self, actor: _Actor) -> None:
        if actor.handle is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor.handle)

    def _no_room(self, count: int) -> str:
        rewards, there = self._config.rewards, self._ray.cluster_resources()
        return (
            f"cluster.rewards.count={rewards.count}: {count} of them found no place within "
            f"cluster.start_timeout_s={self._config.start_timeout_s:g}; each asks for {rewards.cpus:g} CPUs "
            f"and {rewards.gpus:g} GPUs, the whole cluster has {there.get('CPU', 0):g} and "
            f"{there.get('GPU', 0):g}: lower count, cpus or gpus, or add nodes"
        )

    # ---- everything below runs in the dispatcher's thread

    def _run(self) -> None:
        try:
            while True:
                self._look()
                try:
                    event = self._events.get(timeout=LOOK_S)
                except queue.Empty:
                    continue
                if event is None:
                    return
                if isinstance(event, _Answer):
                    self._take_answer(event)
                else:
                    self._take_in(event)
                self._hand_out()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits in `finish`, never swallowed
            self._failure = error

    def _take_in(self, calls: Sequence[Call]) -> None:
        self._queues.add([call for call in calls if call.component not in self._waiting])
        for call in calls:
            if call.component in self._waiting:
                self._waiting[call.component] += self._parts(call)

    def _parts(self, call: Call) -> Sequence[Call]:
        """A call whose rows need not stand together, as one for each actor."""
        if not call.may_split:
            return [call]
        size = -(-len(call.rows) // len(self._actors))
        starts = range(0, len(call.rows), size)
        return [Call(call.run, call.component, call.rows[at : at + size], True) for at in starts]

    def _hand_out(self) -> None:
        ready = [actor for actor in self._actors if actor.is_ready]
        ahead = CHUNKS_AHEAD * self._num_processes
        for place in range(ahead):  # each actor its first chunk before any its second
            for actor in ready:
                if actor.requests(self._isolated) <= place and not self._give_chunk(
                    actor, len(ready) * ahead
                ):
                    break
        for component, waiting in self._waiting.items():
            while waiting and (chosen := self._with_room(component, ready)) is not None:
                self._give(chosen, [waiting.popleft()])

    def _give_chunk(self, actor: _Actor, places: int) -> bool:
        calls = self._queues.next_chunk(places)
        self._give(actor, calls)
        return bool(calls)

    def _with_room(self, component: int, ready: Sequence[_Actor]) -> _Actor | None:
        """The actor with the fewest calls of `component`; None while all that may run at once do."""
        if not ready:
            return None
        chosen = min(ready, key=lambda actor: actor.requests([component]))
        if component in self._threaded:
            return chosen if chosen.requests([component]) < THREAD_CALLS else None
        running = sum(actor.requests([component]) for actor in ready)
        return chosen if running < self._components[component].definition.max_concurrency else None

    def _give(self, actor: _Actor, calls: Sequence[Call]) -> None:
        sent: list[Call] = []
        rows: list[list[bytes]] = []
        size = 0
        for at, call in enumerate(calls):
            if call.answered or call.run.cancelled:
                continue
            pickled = pickle_rows(call)
            if isinstance(pickled, str):
                failed = TimedScore(Score.failed(ScoreOutcome.ERROR, pickled))
                self._answer(call, [failed] * len(call.rows))
                continue
            sent.append(call)
            rows.append(pickled)
            size += sum(map(len, pickled))
            if size > CHUNK_BYTES:
                self._put_back(calls[at + 1 :])
                break
        if not sent:
            return
        self._serial += 1
        serial, component = self._serial, sent[0].component
        actor.given[serial] = _Given(component, sent, time.monotonic())
        self._ask(actor, serial, actor.handle.score.remote(self._position_of[component], rows))

    def _ask(self, actor: _Actor, serial: int, reference: Any) -> None:
        """Have the outcome of `reference` come in as an event."""
        handle = actor.handle
        reference.future().add_done_callback(
            lambda future: self._events.put(_Answer(actor, handle, serial, future))
        )

    def _take_answer(self, answer: _Answer) -> None:
        actor, serial = answer.actor, answer.serial
        if answer.handle is not actor.handle:
            return  # it was lost meanwhile and its calls were handed out again
        try:
            outcome = answer.future.result()
        except self._ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except self._ray.exceptions.RayError as error:
            self._lose(actor, str(error).strip().splitlines()[0])
            return
        if serial == OPENING:
            actor.is_ready = True
            return
        answers, replaced = outcome
        given = actor.given.pop(serial)
        self._replaced.update(replaced)
        spent_s = 0.0
        for call, rows in zip(given.calls, answers, strict=True):
            scores = unpack_rows(rows)
            spent_s += math.fsum(timed.latency_s for timed in scores)
            self._answer(call, scores)
        if given.component not in self._waiting:
            self._queues.learn(given.component, spent_s / len(given.calls))

    @staticmethod
    def _answer(call: Call, scores: Sequence[TimedScore]) -> None:
        if not call.answered:
            call.answered = True
            call.run.complete(call.component, call.rows, scores)

    def _look(self) -> None:
        """Replace actors that are past the deadline of a request; give up on a cluster without room."""
        now, config = time.monotonic(), self._config
        if now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        for actor in self._actors:
            if any(now - given.sent_s > config.call_timeout_s for given in actor.given.values()):
                self._lose(actor, f"no answer within cluster.call_timeout_s={config.call_timeout_s:g}")
        missing = [actor for actor in self._actors if not actor.is_ready]
        if len(missing) == len(self._actors) and all(
            now - actor.began_s > config.start_timeout_s for actor in missing
        ):
            raise RewardError(self._no_room(len(missing)))

    def _lose(self, actor: _Actor, why: str) -> None:
        """Replace the actor; its calls are made again, by whoever is free first."""
        actor.num_lost += 1
        if actor.num_lost > self._config.max_restarts:
            raise RewardError(
                f"{actor.name} was lost {actor.num_lost} times, more than cluster.max_restarts="
                f"{self._config.max_restarts}; the last time: {why}. It had calls of "
                f"{', '.join(sorted({self._components[g.component].name for g in actor.given.values()}))}"
            )
        self._replaced["actor lost"] += 1
        self._kill(actor)
        given, actor.given = actor.given, {}
        self._launch(actor)
        self._ask(actor, OPENING, actor.handle.open.remote())
        for request in given.values():
            self._put_back(request.calls)

    def _put_back(self, calls: Sequence[Call]) -> None:
        for call in reversed(calls):
            if call.component in self._waiting:
                self._waiting[call.component].appendleft(call)
            else:
                self._queues.put_back([call])


def _cause(error: Any) -> Exception:
    cause = error.cause
    return cause if isinstance(cause, VerlLiteError) else RewardError(f"in a reward worker: {error}")
