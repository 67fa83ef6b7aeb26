"""The worker processes: hand out chunks of calls, watch deadlines, replace what dies.

One thread of the parent does all of it. A call past its deadline costs its worker and nothing else: the
unanswered calls of the same chunk are sent out again.
"""

import contextlib
import math
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from verl_lite.errors import PluginError, RewardError
from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.batcher import Call, Receiver
from verl_lite.plugins.execution.limits import BUILD_S, LOAD_S, WorkerLimits
from verl_lite.plugins.execution.queues import CHUNK_BYTES, CallQueues, pickle_rows
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.reward_worker import KillReason, RewardWorker, SentChunk
from verl_lite.plugins.execution.spec import spec_of
from verl_lite.plugins.execution.wire import AnswerBatch, read_answers
from verl_lite.plugins.execution.worker_failures import blame_calls
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.workers import ForkServerHandle, WorkerStartError, resident_mb

STEAL_S = 0.05  # once a call takes longer than this, the rest of its chunk goes to other workers
STALL_S = 60.0  # a worker that sends nothing for this long outside a call is replaced
WATCH_S = 0.05  # how often busy workers are checked
FORK_SERVER_TRIES = 3  # deaths of the fork server within FORK_SERVER_PERIOD_S that end the run
FORK_SERVER_PERIOD_S = 600.0
EARLY_DEATHS = 20  # consecutive deaths of workers without an answer or a row to blame that end the run


class ProcessPool:
    """Runs the calls of `components` (index in the execution -> component) in `workers` processes."""

    def __init__(
        self, components: dict[int, Component], workers: int, limits: WorkerLimits, replaced: Counter[str]
    ) -> None:
        self._components = components
        self._position_of = {index: at for at, index in enumerate(components)}
        self._specs = [spec_of(component) for component in components.values()]
        self._num_workers = workers
        self._limits = limits
        self._replaced = replaced  # why workers were replaced -> how often
        self._failure: Exception | None = None
        self._queues = CallQueues(components)
        self._incoming: deque[Sequence[Call]] = deque()
        self._workers: dict[int, RewardWorker] = {}
        self._broken: dict[int, str] = {}
        self._next_chunk = self._early_deaths = 0
        self._server_deaths: deque[float] = deque(maxlen=FORK_SERVER_TRIES)
        self._stopping = False
        self._ready = threading.Event()
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._server: ForkServerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="verl-lite-reward-pool", daemon=True)

    def start(self) -> None:
        """Start the processes; raises PluginError when a reward cannot be loaded in them."""
        self._thread.start()
        self._ready.wait()
        self.check()

    def submit(self, calls: Sequence[Call]) -> None:
        self._incoming.append(calls)
        self._notify()

    def check(self) -> None:
        """Raise the error that ended the pool's thread, if any."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Kill every worker and every process it left behind."""
        self._stopping = True
        if not self._ready.is_set() and self._server is not None:
            self._server.abort()
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
        self._selector = selectors.DefaultSelector()
        try:
            self._selector.register(self._woken, selectors.EVENT_READ, self._on_wake)
            self._start_server()
            self._ready.set()
            while not self._stopping:
                self._enqueue()
                self._send_chunks()
                for key, events in self._selector.select(self._pause_s()):
                    if self._selector.get_map().get(key.fd) is key:  # not closed by an event before it
                        key.data(events)
                self._watch()
        except Exception as error:  # noqa: BLE001 - raised in `finish`
            self._failure = error
        finally:
            self._end()
            self._ready.set()

    def _start_server(self) -> None:
        self._server = server = ForkServerHandle(
            "verl_lite.plugins.execution.worker:prepare",
            self._specs,
            workers=self._num_workers,
            dies_with_thread=True,
        )
        if self._stopping:
            return
        try:
            is_ready = server.wait_ready(LOAD_S)
        except WorkerStartError as error:
            raise PluginError(str(error)) from None
        if not is_ready:
            names = ", ".join(spec.name for spec in self._specs)
            raise PluginError(f"importing the rewards took longer than {LOAD_S:g} s: {names}")
        self._selector.register(server.control, selectors.EVENT_READ, self._on_exits)
        for index in range(self._num_workers):
            self._add_worker(index)

    def _add_worker(self, index: int) -> None:
        assert self._server is not None
        worker = RewardWorker(self._server.fork(index))
        process, register = worker.process, self._selector.register
        self._workers[process.key] = worker
        register(process.channel, selectors.EVENT_READ, lambda events: self._on_channel(worker, events))
        register(process.output_fd, selectors.EVENT_READ, lambda events: self._on_output(worker))

    def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for worker in self._workers.values():
            worker.process.close()
        self._workers.clear()
        self._selector.close()

    # ---- sending

    def _enqueue(self) -> None:
        while self._incoming:
            self._queues.add(self._incoming.popleft())
        for component, reason in self._broken.items():
            for call in self._queues.drain(component):
                self._fail(call, TimedScore(Score.failed(ScoreOutcome.ERROR, reason)))

    def _send_chunks(self) -> None:
        for worker in self._workers.values():
            while worker.is_idle:
                calls = self._queues.next_chunk(self._num_workers)
                if not calls:
                    return
                self._send(worker, [call for call in calls if not call.answered and not call.run.cancelled])

    def _send(self, worker: RewardWorker, calls: Sequence[Call]) -> None:
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
            chunk = SentChunk(self._next_chunk, component, sent, len(sent), time.monotonic())
            worker.send(chunk, self._position_of[component], rows)
            self._watch_for_room(worker)

    def _watch_for_room(self, worker: RewardWorker) -> None:
        channel = worker.process.channel
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.process.outgoing else 0)
        key = self._selector.get_key(channel)
        if key.events != events:
            self._selector.modify(channel, events, key.data)

    @staticmethod
    def _fail(call: Call, score: TimedScore) -> None:
        if not call.answered:
            call.answered = True
            call.run.complete(call.component, call.rows, [score] * len(call.rows))

    # ---- receiving

    def _on_wake(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def _on_output(self, worker: RewardWorker) -> None:
        if not worker.process.read_output():
            self._selector.unregister(worker.process.output_fd)

    def _on_channel(self, worker: RewardWorker, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            worker.process.write()
            self._watch_for_room(worker)
        if events & selectors.EVENT_READ and not self._receive(worker):
            worker.hung_up = True
            self._selector.unregister(worker.process.channel)

    def _receive(self, worker: RewardWorker) -> bool:
        """Read what a worker sent; False when nothing more can come."""
        process = worker.process
        is_open = process.inbox.read(process.channel)
        worker.received_s = time.monotonic()
        try:
            batches = [read_answers(body) for body in process.inbox.bodies()]
        except ValueError:  # the reward wrote into the channel
            self._kill(worker, KillReason("damaged channel"))
            return False
        for batch in batches:
            if worker.chunk is not None and worker.chunk.serial == batch.serial:
                self._accept(worker, worker.chunk, batch)
        return is_open

    def _accept(self, worker: RewardWorker, chunk: SentChunk, batch: AnswerBatch) -> None:
        self._early_deaths = 0
        by_run: dict[Receiver, tuple[list[int], list[TimedScore]]] = {}
        for call, scores in zip(chunk.calls[batch.first :], batch.scores):
            if not call.answered and len(scores) == len(call.rows):
                call.answered = True
                if call.starts:
                    scores = [replace(score, attempts=score.attempts + call.starts) for score in scores]
                to_rows, to_scores = by_run.setdefault(call.run, ([], []))
                to_rows.extend(call.rows)
                to_scores.extend(scores)
        for run, (to_rows, to_scores) in by_run.items():
            run.complete(chunk.component, to_rows, to_scores)
            worker.rows_done += len(to_rows)
        if batch.scores:
            self._queues.learn(chunk.component, batch.spent_s / len(batch.scores))
        if batch.health is not None:
            worker.chunk = None
            # calls are left where it stopped early because its streams were damaged
            self._queues.put_back([chunk.calls[at] for at in chunk.open_positions()])
            why = self._limits.worn_out(batch.health, worker.rows_done)
            if why:
                self._kill(worker, KillReason(why))

    # ---- watching

    def _pause_s(self) -> float | None:
        """How long to wait for news: until busy workers are due for a check, or their next deadline."""
        busy = [worker for worker in self._workers.values() if worker.chunk is not None and not worker.killed]
        if not busy:
            return None
        now_s = time.monotonic()
        return max(0.0005, min(WATCH_S, *(self._deadline_s(worker) - now_s for worker in busy)))

    def _deadline_s(self, worker: RewardWorker) -> float:
        """When the worker's current call has used up its time; infinite between calls."""
        progress = worker.process.slot.read()
        if worker.chunk is None or progress.chunk != worker.chunk.serial or not progress.started_ns:
            return math.inf
        component = self._components[worker.chunk.component]
        return progress.started_ns / 1e9 + (BUILD_S if progress.position == -1 else component.timeout_s)

    def _watch(self) -> None:
        for worker in list(self._workers.values()):
            if worker.chunk is not None and worker.killed is None:
                self._watch_one(worker, worker.chunk)

    def _watch_one(self, worker: RewardWorker, chunk: SentChunk) -> None:
        slot = worker.process.slot
        progress = slot.read()
        now_s = time.monotonic()
        if progress.chunk != chunk.serial or not progress.started_ns:
            if now_s - max(chunk.sent_s, worker.received_s) > STALL_S:
                self._kill(worker, KillReason("stalled"))
            return
        elapsed_s = now_s - progress.started_ns / 1e9
        at = progress.position
        used_mb = resident_mb(worker.process.pid)
        if now_s > self._deadline_s(worker):
            self._kill(worker, KillReason("timeout", at, elapsed_s))
        elif used_mb > self._limits.memory_mb:
            self._kill(worker, KillReason("memory", at, elapsed_s, used_mb))
        elif elapsed_s > STEAL_S and at >= 0 and chunk.limit > at + 1:
            rest = [chunk.calls[position] for position in chunk.open_positions() if position > at]
            chunk.limit = slot.limit = at + 1
            self._queues.put_back(rest)

    def _kill(self, worker: RewardWorker, reason: KillReason) -> None:
        assert self._server is not None
        if worker.killed is None:
            worker.killed = reason
            self._server.kill(worker.process)

    def _on_exits(self, events: int) -> None:
        assert self._server is not None
        ended = self._server.exits()
        if ended is None:
            self._restart_server()
            return
        for process in ended:
            self._on_exit(self._workers[process.key], process.exit_status or 0)
            self._add_worker(process.index)

    def _on_exit(self, worker: RewardWorker, status: int) -> None:
        """Read the last messages of a worker that exited and decide about its calls."""
        process = worker.process
        self._receive(worker)
        process.read_output()
        del self._workers[process.key]
        self._replaced[worker.killed.why if worker.killed else "died"] += 1
        if worker.chunk is not None:
            self._fail_calls(worker, worker.chunk, status)
        for watched in (process.channel, process.output_fd):
            with contextlib.suppress(KeyError):
                self._selector.unregister(watched)
        process.close()

    def _fail_calls(self, worker: RewardWorker, chunk: SentChunk, status: int) -> None:
        failure = blame_calls(
            chunk,
            worker.process.slot.read(),
            worker.killed,
            status,
            timeout_s=self._components[chunk.component].timeout_s,
            printed=worker.process.tail,
        )
        if failure.broken:
            self._broken[chunk.component] = failure.broken
        for call, score in failure.failed:
            self._fail(call, score)
        self._queues.put_back(failure.again)
        self._early_deaths = 0 if failure.failed or failure.broken else self._early_deaths + 1
        if self._early_deaths > EARLY_DEATHS + len(failure.again):  # each row may be a suspect once
            raise RewardError(f"{self._early_deaths} reward workers in a row died before they gave an answer")

    def _restart_server(self) -> None:
        """Something outside killed the fork server, and the workers with it: no row is at fault."""
        assert self._server is not None
        deaths = self._server_deaths
        deaths.append(time.monotonic())
        if len(deaths) == FORK_SERVER_TRIES and deaths[-1] - deaths[0] < FORK_SERVER_PERIOD_S:
            raise RewardError(
                f"the fork server of the reward workers was killed {FORK_SERVER_TRIES} times in "
                f"{deaths[-1] - deaths[0]:.0f} s; is memory short?"
            )
        for worker in list(self._workers.values()):
            worker.killed = KillReason("the fork server was killed")
            self._on_exit(worker, 0)
        server, self._server = self._server, None
        self._selector.unregister(server.control)
        server.close()
        self._start_server()
