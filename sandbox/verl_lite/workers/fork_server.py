"""The process that imports the rewards once and forks the workers: clean, single-threaded, ours.

A worker killed at its deadline is replaced in milliseconds, because the replacement imports nothing.
Forking the trainer itself would copy torch's threads and locks; this process has neither. It never
calls a reward. It adopts whatever a worker leaves behind (PR_SET_CHILD_SUBREAPER) and kills it.
"""

import contextlib
import ctypes
import gc
import os
import pickle
import select
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import NoReturn

from verl_lite.plugins.execution.blueprint import Blueprint, LoadedReward, load
from verl_lite.plugins.execution.progress import ProgressPage

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class _Nursery:
    control: socket.socket
    page: ProgressPage
    rewards: list[LoadedReward | None]
    wake_fd: int
    workers: dict[int, int] = field(default_factory=dict)  # process id -> the parent's key
    is_ending: bool = False

    def run(self) -> None:
        """Serve until the parent is gone."""
        while not self.is_ending:
            ready, _, _ = select.select([self.control.fileno(), self.wake_fd], [], [])
            if self.wake_fd in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake_fd, 4096)
                self._reap()
            if self.control.fileno() in ready:
                request, fds, _, _ = socket.recv_fds(self.control, 256, 2)
                if not request:
                    return
                self._obey(request, fds)

    def on_sigterm(self, number: int, frame: object) -> None:
        self.is_ending = True  # and `run` is woken; raising here could interrupt the cleaning up

    def _obey(self, request: bytes, fds: list[int]) -> None:
        word, key, *rest = pickle.loads(request)
        if word == "fork":
            self._fork(key, rest[0], *fds)
        elif word == "kill":
            for pid in [pid for pid, worker in self.workers.items() if worker == key]:
                _kill_group(pid)

    def _fork(self, key: int, slot: int, channel_fd: int, output_fd: int) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(parent, slot, channel_fd, output_fd)
        os.close(channel_fd)
        os.close(output_fd)
        self.workers[pid] = key
        self._tell("forked", key, pid)

    def _become_worker(self, parent: int, slot: int, channel_fd: int, output_fd: int) -> NoReturn:
        code = 70  # an internal failure; what the reward itself does is dealt with in `serve`
        try:
            os.setsid()
            die_with_parent(parent, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.close(self.wake_fd)
            self.control.close()
            os.dup2(output_fd, 1)
            os.dup2(output_fd, 2)
            os.close(output_fd)
            from verl_lite.plugins.execution.worker import serve

            serve(socket.socket(fileno=channel_fd), self.page.slots[slot], self.rewards)
            code = 0
        finally:
            os._exit(code)  # threads and exit handlers of a reward have no say here

    def _reap(self) -> None:
        """Report the workers that died; whatever they left behind dies too."""
        while True:
            found = _peek_dead()
            if found is None:
                return
            key = self.workers.pop(found, None)
            if key is not None:
                _kill_group(found)
            _, status = os.waitpid(found, 0)
            if key is not None:
                self._sweep()
                self._tell("exited", key, status)

    def _sweep(self) -> None:
        while strays := _children() - set(self.workers):
            for pid in strays:
                _kill_group(pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _tell(self, *message: object) -> None:
        with contextlib.suppress(OSError):  # the parent is gone: `run` sees that next
            self.control.send(pickle.dumps(message, 5))

    def end(self) -> None:
        for pid in self.workers:
            _kill_group(pid)
        for pid in self.workers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self.workers.clear()
        self._sweep()


def die_with_parent(parent: int, number: int) -> None:
    """Have the kernel send `number` to this process when its parent dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _peek_dead() -> int | None:
    """A dead child that was not waited for yet, so that its process id is still its own."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def _children() -> set[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return {int(pid) for pid in file.read().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return {
            pid
            for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if _parent_of(pid) == os.getpid()
        }


def _parent_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _load_all(blueprints: list[Blueprint]) -> tuple[list[LoadedReward | None], dict[str, str]]:
    rewards: list[LoadedReward | None] = []
    failures: dict[str, str] = {}
    for blueprint in blueprints:
        try:
            rewards.append(load(blueprint))
        except BaseException as error:  # noqa: BLE001 - the border: importing a plugin may raise anything
            failures[blueprint.name] = f"{type(error).__name__}: {error}"[:500]
            rewards.append(None)
    return rewards, failures


def main(parent: int, control_fd: int, page_fd: int, workers: int) -> None:
    """Read the blueprints from standard input, load them, say so, and serve the parent until it ends."""
    die_with_parent(parent, signal.SIGKILL)  # importing a reward may hang in C code
    blueprints = pickle.load(sys.stdin.buffer)
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.close(devnull)
    control = socket.socket(fileno=control_fd)
    rewards, failures = _load_all(blueprints)
    control.send(pickle.dumps(("ready", failures), 5))

    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake_fd, signalled_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(signalled_fd, warn_on_full_buffer=False)
    nursery = _Nursery(control, ProgressPage(page_fd, workers), rewards, wake_fd)
    signal.signal(signal.SIGTERM, nursery.on_sigterm)
    die_with_parent(parent, signal.SIGTERM)
    gc.collect()
    gc.freeze()  # keeps the pages of what was imported shared with the workers
    try:
        nursery.run()
    finally:
        nursery.end()
