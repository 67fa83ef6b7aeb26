"""The worker processes: hand out chunks of calls, watch deadlines, replace what dies.

One thread of the parent does all of it. A call that passes its deadline costs itself its worker and
nothing more: calls of the same chunk that were not answered are handed out again.
"""

import contextlib
import math
import os
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from verl_lite.errors import RewardError
from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.answers import AnswerBatch, read_answers
from verl_lite.plugins.execution.batcher import Call, Receiver
from verl_lite.plugins.execution.blueprint import draw
from verl_lite.plugins.execution.limits import WorkerLimits
from verl_lite.plugins.execution.losses import Loss, judge_loss
from verl_lite.plugins.execution.nursery_handle import NurseryHandle
from verl_lite.plugins.execution.progress import ProgressPage
from verl_lite.plugins.execution.queues import CHUNK_BYTES, CallQueues, pickle_rows
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.worker_handle import Doom, Given, WorkerHandle
from verl_lite.plugins.score import Score, ScoreOutcome

__all__ = ["ProcessPool"]

BUILD_S = 120.0  # the longest that building a reward of class form may take
STEAL_S = 0.05  # a call that takes longer than this gives the rest of its chunk to others
STALL_S = 60.0  # a worker that says nothing for so long while no call runs is replaced
WATCH_S = 0.05  # how often busy workers are looked at
NURSERY_TRIES = 3  # so many deaths of the nursery within this period end the run
NURSERY_PERIOD_S = 600.0
EARLY_DEATHS = 20  # workers in a row that died without an answer or a row to blame: ends the run


class ProcessPool:
    """Runs the calls of `components` (index in the execution -> component) in `workers` processes."""

    def __init__(
        self, components: dict[int, Component], workers: int, limits: WorkerLimits, replaced: Counter[str]
    ) -> None:
        self._components = components
        self._position_of = {index: at for at, index in enumerate(components)}
        self._blueprints = [draw(component) for component in components.values()]
        self._num_workers = workers
        self._limits = limits
        self._replaced = replaced  # why workers were replaced -> how often
        self._failure: Exception | None = None
        self._queues = CallQueues(components)
        self._incoming: deque[Sequence[Call]] = deque()
        self._workers: dict[int, WorkerHandle] = {}
        self._broken: dict[int, str] = {}
        self._next_key = self._next_chunk = self._early_deaths = 0
        self._nursery_deaths: deque[float] = deque(maxlen=NURSERY_TRIES)
        self._stopping = False
        self._ready = threading.Event()
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._nursery: NurseryHandle | None = None
        self._thread = threading.Thread(target=self._run, name="verl-lite-reward-pool", daemon=True)

    def start(self) -> None:
        """Start the processes; raises PluginError when a reward cannot be loaded there."""
        self._thread.start()
        self._ready.wait()
        self.check()

    def submit(self, calls: Sequence[Call]) -> None:
        self._incoming.append(calls)
        self._notify()

    def check(self) -> None:
        """Raise what ended the pool's thread, if anything did."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Kill every worker and all that they left behind."""
        self._stopping = True
        if not self._ready.is_set() and self._nursery is not None:
            self._nursery.abort()
        self._notify()
        if self._thread.is_alive():
            self._thread.join()
        self._wake.close()
        self._woken.close()

    def _notify(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # woken often enough already, or closed
            self._wake.send(b"w")

    # ---- everything below runs in the pool's own thread

    def _run(self) -> None:
        self._page = ProgressPage.create(self._num_workers)
        self._selector = selectors.DefaultSelector()
        try:
            self._selector.register(self._woken, selectors.EVENT_READ, self._on_wake)
            self._start_nursery()
            self._ready.set()
            while not self._stopping:
                self._take_in()
                self._hand_out()
                for key, events in self._selector.select(self._pause_s()):
                    if self._selector.get_map().get(key.fd) is key:  # not closed by an event before it
                        key.data(events)
                self._watch()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits in `finish`, never swallowed
            self._failure = error
        finally:
            self._end()
            self._ready.set()

    def _start_nursery(self) -> None:
        self._nursery = NurseryHandle(self._blueprints, self._page, self._num_workers)
        if self._stopping:
            return
        self._nursery.wait_ready()
        self._selector.register(self._nursery.control, selectors.EVENT_READ, self._on_nursery)
        for index in range(self._num_workers):
            self._add_worker(index)

    def _add_worker(self, index: int) -> None:
        assert self._nursery is not None
        ours, theirs = socket.socketpair()
        output_fd, printed_fd = os.pipe()
        ours.setblocking(False)
        os.set_blocking(output_fd, False)
        self._next_key += 1
        slot = self._page.slots[index]
        slot.clear()
        worker = WorkerHandle(self._next_key, index, slot, ours, output_fd)
        self._workers[worker.key] = worker
        self._nursery.fork(worker.key, index, theirs.fileno(), printed_fd)
        theirs.close()
        os.close(printed_fd)
        self._selector.register(ours, selectors.EVENT_READ, lambda events: self._on_channel(worker, events))
        self._selector.register(output_fd, selectors.EVENT_READ, lambda events: self._on_output(worker))

    def _end(self) -> None:
        if self._nursery is not None:
            self._nursery.close()
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._selector.close()
        self._page.close()

    # ---- handing out

    def _take_in(self) -> None:
        while self._incoming:
            self._queues.add(self._incoming.popleft())
        for component, reason in self._broken.items():
            for call in self._queues.drain(component):
                self._fail(call, TimedScore(Score.failed(ScoreOutcome.ERROR, reason)))

    def _hand_out(self) -> None:
        for worker in self._workers.values():
            while worker.is_idle:
                calls = self._queues.take(self._num_workers)
                if not calls:
                    return
                self._give(worker, [call for call in calls if not call.answered and not call.run.cancelled])

    def _give(self, worker: WorkerHandle, calls: Sequence[Call]) -> None:
        sent: list[Call] = []
        rows = []
        size = 0
        for at, call in enumerate(calls):
            pickled = pickle_rows(call)
            if isinstance(pickled, str):
                self._fail(call, TimedScore(Score.failed(ScoreOutcome.ERROR, pickled)))
                continue
            sent.append(call)
            rows.append(pickled)
            size += sum(map(len, pickled))
            if size > CHUNK_BYTES:
                self._queues.put_back(calls[at + 1 :])
                break
        if sent:
            self._next_chunk += 1
            component = sent[0].component
            given = Given(self._next_chunk, component, sent, len(sent), time.monotonic())
            worker.give(given, self._position_of[component], rows)
            self._want_write(worker)

    def _want_write(self, worker: WorkerHandle) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.outgoing else 0)
        key = self._selector.get_key(worker.channel)
        if key.events != events:
            self._selector.modify(worker.channel, events, key.data)

    @staticmethod
    def _fail(call: Call, score: TimedScore) -> None:
        if not call.answered:
            call.answered = True
            call.run.complete(call.component, call.rows, [score] * len(call.rows))

    # ---- what comes back

    def _on_wake(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def _on_output(self, worker: WorkerHandle) -> None:
        if not worker.read_output():
            self._selector.unregister(worker.output_fd)

    def _on_channel(self, worker: WorkerHandle, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            worker.write()
            self._want_write(worker)
        if events & selectors.EVENT_READ and not self._hear(worker):
            worker.hung_up = True
            self._selector.unregister(worker.channel)

    def _hear(self, worker: WorkerHandle) -> bool:
        """Take in what a worker sent; False when nothing more can come."""
        is_open = worker.inbox.read(worker.channel)
        worker.heard_s = time.monotonic()
        try:
            batches = [read_answers(message) for message in worker.inbox.messages()]
        except ValueError:  # the reward wrote into the channel
            self._doom(worker, Doom("damaged channel"))
            return False
        for batch in batches:
            if worker.given is not None and worker.given.serial == batch.serial:
                self._take_answers(worker, worker.given, batch)
        return is_open

    def _take_answers(self, worker: WorkerHandle, given: Given, batch: AnswerBatch) -> None:
        self._early_deaths = 0
        by_run: dict[Receiver, tuple[list[int], list[TimedScore]]] = {}
        for call, scores in zip(given.calls[batch.first :], batch.scores):
            if not call.answered and len(scores) == len(call.rows):
                call.answered = True
                if call.starts:
                    scores = [replace(score, attempts=score.attempts + call.starts) for score in scores]
                to_rows, to_scores = by_run.setdefault(call.run, ([], []))
                to_rows.extend(call.rows)
                to_scores.extend(scores)
        for run, (to_rows, to_scores) in by_run.items():
            run.complete(given.component, to_rows, to_scores)
            worker.rows_done += len(to_rows)
        if batch.scores:
            self._queues.learn(given.component, batch.spent_s / len(batch.scores))
        if batch.health is not None:
            worker.given = None
            # calls are left over where it stopped early because its streams were damaged
            self._queues.put_back([given.calls[at] for at in given.open_positions()])
            why = self._limits.worn_out(batch.health, worker.rows_done)
            if why:
                self._doom(worker, Doom(why))

    # ---- watching

    def _pause_s(self) -> float | None:
        """How long to wait for news: until the next look at the busy workers, or their next deadline."""
        busy = [worker for worker in self._workers.values() if worker.given is not None and not worker.doom]
        if not busy:
            return None
        now_s = time.monotonic()
        return max(0.0005, min(WATCH_S, *(self._deadline_s(worker) - now_s for worker in busy)))

    def _deadline_s(self, worker: WorkerHandle) -> float:
        """When the call that a worker is at has had its time; infinite between calls."""
        progress = worker.slot.read()
        if worker.given is None or progress.chunk != worker.given.serial or not progress.started_ns:
            return math.inf
        component = self._components[worker.given.component]
        return progress.started_ns / 1e9 + (BUILD_S if progress.position == -1 else component.timeout_s)

    def _watch(self) -> None:
        for worker in list(self._workers.values()):
            if worker.given is not None and worker.doom is None:
                self._watch_one(worker, worker.given)

    def _watch_one(self, worker: WorkerHandle, given: Given) -> None:
        progress = worker.slot.read()
        now_s = time.monotonic()
        if progress.chunk != given.serial or not progress.started_ns:
            if now_s - max(given.sent_s, worker.heard_s) > STALL_S:
                self._doom(worker, Doom("stalled"))
            return
        elapsed_s = now_s - progress.started_ns / 1e9
        at = progress.position
        resident_mb = worker.resident_mb()
        if now_s > self._deadline_s(worker):
            self._doom(worker, Doom("timeout", at, elapsed_s))
        elif resident_mb > self._limits.memory_mb:
            self._doom(worker, Doom("memory", at, elapsed_s, resident_mb))
        elif elapsed_s > STEAL_S and at >= 0 and given.limit > at + 1:
            rest = [given.calls[position] for position in given.open_positions() if position > at]
            given.limit = worker.slot.limit = at + 1
            self._queues.put_back(rest)

    def _doom(self, worker: WorkerHandle, doom: Doom) -> None:
        assert self._nursery is not None
        if worker.doom is None:
            worker.doom = doom
            self._nursery.kill(worker.key)

    def _on_nursery(self, events: int) -> None:
        assert self._nursery is not None
        messages = self._nursery.messages()
        if messages is None:
            self._restart_nursery()
            return
        for word, key, number in messages:
            worker = self._workers.get(key)
            if worker is None:
                continue
            if word == "forked":
                worker.pid = number
            elif word == "exited":
                self._lose(worker, number)
                self._add_worker(worker.index)

    def _lose(self, worker: WorkerHandle, status: int) -> None:
        """Settle the calls of a worker that is gone, after reading what it still said."""
        self._hear(worker)
        worker.read_output()
        del self._workers[worker.key]
        self._replaced[worker.doom.why if worker.doom else "died"] += 1
        given = worker.given
        if given is not None:
            component = self._components[given.component]
            progress = worker.slot.read()
            loss = judge_loss(
                given, progress, worker.doom, status, timeout_s=component.timeout_s, printed=worker.tail
            )
            if loss.broken:
                self._broken[given.component] = loss.broken
            for call, score in loss.failed:
                self._fail(call, score)
            self._queues.put_back(loss.again)
            self._count_early_death(loss)
        for watched in (worker.channel, worker.output_fd):
            with contextlib.suppress(KeyError):
                self._selector.unregister(watched)
        worker.close()

    def _count_early_death(self, loss: Loss) -> None:
        self._early_deaths = 0 if loss.failed or loss.broken else self._early_deaths + 1
        if self._early_deaths > EARLY_DEATHS + len(loss.again):  # each row may be a suspect once
            raise RewardError(f"{self._early_deaths} reward workers in a row died before they gave an answer")

    def _restart_nursery(self) -> None:
        """Something outside killed the nursery, and the workers died with it: nobody's row is at fault."""
        assert self._nursery is not None
        deaths = self._nursery_deaths
        deaths.append(time.monotonic())
        if len(deaths) == NURSERY_TRIES and deaths[-1] - deaths[0] < NURSERY_PERIOD_S:
            raise RewardError(
                f"the process that starts reward workers was killed {NURSERY_TRIES} times; is memory short?"
            )
        for worker in list(self._workers.values()):
            worker.doom = Doom("the nursery was killed")
            self._lose(worker, 0)
        self._selector.unregister(self._nursery.control)
        self._nursery.close()
        self._start_nursery()
