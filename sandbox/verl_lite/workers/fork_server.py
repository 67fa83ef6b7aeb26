"""The process that imports once and forks the workers; single-threaded.

A killed worker is replaced in milliseconds, because the replacement imports nothing. Forking the
caller itself would copy its threads and locks; this process has neither. It runs no jobs. It adopts
whatever a worker leaves behind (PR_SET_CHILD_SUBREAPER) and kills it.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import NoReturn

from verl_lite.errors import VerlLiteError
from verl_lite.workers.progress import ProgressPage, Serve, Slot
from verl_lite.workers.system import child_pids

PARENT_DIED = signal.SIGUSR1
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class _ForkServer:
    parent: int
    control: socket.socket
    page: ProgressPage
    serve: Serve
    wake_fd: int
    workers: dict[int, int] = field(default_factory=dict)  # process id -> the parent's key
    is_ending: bool = False

    def run(self) -> None:
        poller = select.poll()  # not select.select, which refuses descriptors above 1023
        for watched in (self.control.fileno(), self.wake_fd):
            poller.register(watched, select.POLLIN)
        while not self.is_ending and os.getppid() == self.parent:
            ready = dict(poller.poll())
            if self.wake_fd in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake_fd, 4096)
                self._reap()
            if self.control.fileno() in ready:
                try:
                    request, fds, _, _ = socket.recv_fds(self.control, 256, 2)
                except ConnectionResetError:  # the parent left with reports unread
                    return
                if not request:
                    return
                self._handle(request, fds)

    def on_sigterm(self, number: int, frame: object) -> None:
        self.is_ending = True  # the signal also wakes `run`; raising here could interrupt the clean-up

    def _handle(self, request: bytes, fds: list[int]) -> None:
        word, key, *rest = pickle.loads(request)
        if word == "fork":
            self._fork(key, rest[0], *fds)
        elif word == "kill":
            for pid in [pid for pid, worker in self.workers.items() if worker == key]:
                _kill_group(pid)

    def _fork(self, key: int, index: int, channel_fd: int, output_fd: int) -> None:
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(server, self.page.slots[index], channel_fd, output_fd)
        os.close(channel_fd)
        os.close(output_fd)
        self.workers[pid] = key
        self._report("forked", key, pid)

    def _become_worker(self, server: int, slot: Slot, channel_fd: int, output_fd: int) -> NoReturn:
        code = 70  # an internal failure: `serve` deals with what a job does
        try:
            os.setsid()
            _die_with_parent(server, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, PARENT_DIED):
                signal.signal(number, signal.SIG_DFL)
            os.close(self.wake_fd)
            self.control.close()
            os.dup2(output_fd, 1)
            os.dup2(output_fd, 2)
            os.close(output_fd)
            self.serve(socket.socket(fileno=channel_fd), slot)
            code = 0
        finally:
            os._exit(code)  # skips threads and exit handlers that a job left

    def _reap(self) -> None:
        """Report the workers that died, and kill whatever they left behind."""
        while (pid := _peek_dead()) is not None:
            key = self.workers.pop(pid, None)
            if key is not None:
                _kill_group(pid)
            _, status = os.waitpid(pid, 0)
            if key is not None:
                self._sweep()
                self._report("exited", key, status)

    def _sweep(self) -> None:
        while strays := child_pids() - set(self.workers):
            for pid in strays:
                _kill_group(pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _report(self, *message: object) -> None:
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


def _die_with_parent(parent: int, number: int) -> None:
    """Have the kernel send `number` to this process when the thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _peek_dead() -> int | None:
    """A dead child that was not waited for yet, so that its process id is still its own."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def _prepare() -> Serve:
    """Read (entry, argument) from standard input and call the entry, "module:function", with the argument."""
    entry, argument = pickle.load(sys.stdin.buffer)
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.close(devnull)
    module, _, name = entry.partition(":")
    serve: Serve = getattr(importlib.import_module(module), name)(argument)
    return serve


def main(parent: int, control_fd: int, page_fd: int, workers: int, dies_with_thread: bool) -> None:
    """Import and prepare, report that or why not, and fork for the parent until it ends. Never returns.

    `dies_with_thread`: die at once when the thread that started this ends, also while an import hangs
    in C code. Once ready, only the end of the parent process counts.
    """
    if dies_with_thread:
        _die_with_parent(parent, signal.SIGKILL)
    control = socket.socket(fileno=control_fd)
    try:
        serve = _prepare()
    except BaseException as error:  # noqa: BLE001 - the border: what is imported may raise anything
        why = str(error) if isinstance(error, VerlLiteError) else f"{type(error).__name__}: {error}"
        control.send(pickle.dumps(("failed", why[:50_000]), 5))
        os._exit(1)
    control.send(pickle.dumps(("ready", ""), 5))

    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake_fd, signalled_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in (signal.SIGCHLD, PARENT_DIED):
        signal.signal(number, lambda number, frame: None)  # they only wake `run`
    signal.set_wakeup_fd(signalled_fd, warn_on_full_buffer=False)
    server = _ForkServer(parent, control, ProgressPage(page_fd, workers), serve, wake_fd)
    signal.signal(signal.SIGTERM, server.on_sigterm)
    _die_with_parent(parent, PARENT_DIED)
    gc.collect()
    gc.freeze()  # keeps the pages of what was imported shared with the workers
    try:
        server.run()
    finally:
        server.end()
    os._exit(0)  # skips the slow tear-down of imported modules
