"""The reward worker: takes a chunk of calls, answers each, and records its progress.

Whatever the reward does here stays here. Its prints go to a separate pipe, copies of the process that it
forked never reach our loop, and alarms it left are cancelled. The parent replaces a worker
whose streams were closed or that holds too much memory afterwards.
"""

import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial

from verl_lite.errors import PluginError
from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.calls import CATCH_IN_WORKER, Caller
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.spec import Spec, load
from verl_lite.plugins.execution.wire import Answers, Chunk, PickledRow, RowAnswer, pack_row
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.workers import (
    CHANNEL_CLOSED,
    Serve,
    Slot,
    child_pids,
    receive_frame,
    resident_mb,
    send_frame,
)

FLUSH_S = 0.005  # finished answers wait at most this long before they are sent (or for one call to end)


def prepare(specs: Sequence[Spec]) -> Serve:
    """For the fork server: import the rewards. Raises PluginError with every one that cannot be loaded."""
    rewards: list[Component] = []
    failures = []
    for spec in specs:
        try:
            rewards.append(load(spec))
        except BaseException as error:  # noqa: BLE001 - the border: importing a plugin may raise anything
            why = f"{type(error).__name__}: {error}"[:500]
            failures.append(f"reward {spec.name!r} cannot be loaded in a worker process: {why}")
    if failures:
        raise PluginError("\n".join(failures))
    return partial(_serve, rewards)


def _serve(rewards: Sequence[Component], channel: socket.socket, slot: Slot) -> None:
    worker = _Worker(channel, slot, rewards)
    while True:
        try:
            chunk: Chunk = pickle.loads(receive_frame(channel))
        except (EOFError, OSError):
            return
        worker.run(*chunk)


class _Worker:
    def __init__(self, channel: socket.socket, slot: Slot, rewards: Sequence[Component]) -> None:
        self._channel = channel
        self._slot = slot
        self._rewards = rewards
        self._callers: dict[int, Caller] = {}
        self._streams = _Streams(channel.fileno())
        self._process = os.getpid()
        self._built_mb = 0.0  # resident memory when the last reward was built
        self._chunk = 0
        self._position = 0

    def run(self, serial: int, component: int, calls: Sequence[Sequence[PickledRow]]) -> None:
        self._chunk, self._position = serial, -1
        self._begin_call()
        caller = self._caller(component)
        self._slot.end_call()
        first, answers = 0, []
        flushed = time.perf_counter()
        damage = ""
        for position, rows in enumerate(calls):
            if position >= self._slot.limit:
                break
            self._position = position
            answers.append(self._answer(caller, rows))
            damage = self._streams.damage()
            if damage or time.perf_counter() - flushed > FLUSH_S:
                self._send((serial, first, answers, None))
                first, answers, flushed = position + 1, [], time.perf_counter()
            if damage:
                break
        grown_mb = resident_mb(self._process) - self._built_mb
        self._send((serial, first, answers, (grown_mb, len(child_pids()), threading.active_count(), damage)))

    def _answer(self, caller: Caller, rows: Sequence[PickledRow]) -> list[RowAnswer]:
        self._begin_call()
        try:
            rollouts: list[Rollout] = [pickle.loads(row) for row in rows]
        except Exception as error:  # noqa: BLE001 - unpickling runs code of the columns' classes
            reason = f"the rollout cannot be unpickled in the worker: {type(error).__name__}: {error}"
            scores = [TimedScore(Score.failed(ScoreOutcome.ERROR, reason[:300]))] * len(rows)
        else:
            scores = caller.answer(rollouts)
        self._exit_if_copied()
        self._slot.end_call()
        if hasattr(signal, "setitimer"):  # not on Windows
            signal.setitimer(signal.ITIMER_REAL, 0)
        return [pack_row(timed) for timed in scores]

    def _caller(self, component: int) -> Caller:
        caller = self._callers.get(component)
        if caller is None:
            caller = Caller(self._rewards[component], catch=CATCH_IN_WORKER, on_call=self._begin_call)
            self._callers[component] = caller
            caller.build()
            self._exit_if_copied()
            self._built_mb = resident_mb(self._process)
        return caller

    def _exit_if_copied(self) -> None:
        if os.getpid() != self._process:
            os._exit(0)  # a copy of this worker that the reward forked and let return

    def _begin_call(self) -> None:
        self._slot.begin_call(self._chunk, self._position, time.monotonic_ns())

    def _send(self, answers: Answers) -> None:
        if not self._streams.channel_is_ours():
            os._exit(CHANNEL_CLOSED)  # the reward closed it; the parent finds out which row did
        send_frame(self._channel, pickle.dumps(answers, 5))


class _Streams:
    """Standard input, output, error and the channel, as they were when the worker started."""

    def __init__(self, channel_fd: int) -> None:
        self._files = (sys.stdin, sys.stdout, sys.stderr)
        self._channel_fd = channel_fd
        self._known = {fd: _identity(fd) for fd in (0, 1, 2, channel_fd)}

    def channel_is_ours(self) -> bool:
        return _identity(self._channel_fd) == self._known[self._channel_fd]

    def damage(self) -> str:
        """What a call did to the streams, or "". Restores a replaced `sys.stdout` and the like."""
        sys.stdin, sys.stdout, sys.stderr = self._files
        if any(file.closed for file in self._files):
            return "the reward closed a standard stream"
        if any(_identity(fd) != known for fd, known in self._known.items()):
            return "the reward closed or replaced a file descriptor of its worker"
        return ""


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino
