"""The process between the trainer and the fork server: hands runs over, reads their output, stops them.

It is started fresh, so it never held the trainer's memory; it enforces the limits itself, so a busy
trainer cannot delay them; and it ends, taking everything below with it, when the trainer does.
"""

import _socket
import json
import math
import os
import select
import signal
import sys
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from verl_lite.sandbox import _kernel, _rootfs
from verl_lite.sandbox._cell import CellLimits
from verl_lite.sandbox._judge import Observation, judge
from verl_lite.sandbox._payload import in_memory
from verl_lite.sandbox._streams import OutputStreams
from verl_lite.sandbox._usage import private_bytes, tree_usage
from verl_lite.sandbox._wire import receive_frame, send_frame
from verl_lite.sandbox._zygote import (
    DESCRIPTORS,
    ENDED,
    IS_FAILED,
    IS_STARTED,
    KILL,
    STARTED,
    ZygoteOptions,
    serve,
)
from verl_lite.sandbox.limits import Limits, Status

if TYPE_CHECKING:
    from verl_lite.sandbox._cgroup import ControlGroup

_MB = 1 << 20
_SAMPLE_S = 0.02  # how often a whole run's memory and CPU time are looked at
_SHORT_S = 0.002  # most runs are over by then: until then their output waits in its pipes
_SETUP_S = 20.0  # a run that has not started by then is a fault of ours
_GRACE_S = 5.0  # a killed run that is not gone by then is a fault of ours
_UNUSED_UIDS = 1_000_000_000  # as root, a run's user is this plus its fork server's process id
_ZYGOTE_NAMESPACES = (
    _kernel.CLONE_NEWPID
    | _kernel.CLONE_NEWNS
    | _kernel.CLONE_NEWIPC
    | _kernel.CLONE_NEWUTS
    | _kernel.CLONE_NEWNET
)


class ZygoteGone(Exception):
    """The fork server ended: this supervisor is of no more use."""


@dataclass
class Run:
    """One run in progress."""

    limits: Limits
    run_id: int
    streams: OutputStreams
    deadline_s: float = field(default_factory=lambda: time.monotonic() + _SETUP_S)
    stopped: str | None = None
    ended: bytes = b""
    next_sample_s: float | None = None  # None until the program starts

    @property
    def started(self) -> bool:
        """Whether the program itself was reached."""
        return self.streams.heading("reply")[:1] == IS_STARTED


class Supervisor:
    """One fork server, one run at a time. `link` leads to the trainer, `parent` is its pidfd."""

    def __init__(self, link: _socket.socket, parent: int, options: dict[str, object]) -> None:
        self._link, self._parent = link, parent
        self._cancelled = 0
        self._zygote, self._zygote_pid = _start_zygote(options, [link.fileno(), parent])
        ready = self._zygote.recv(4096).decode(errors="replace")
        if ready != "ready":
            raise ZygoteGone(ready.removeprefix("failed: ") or "it ended while it started")
        self._shared_bytes = private_bytes(self._zygote_pid)
        self._group = _make_group(self._zygote_pid, str(options["groups"]))

    def serve(self) -> NoReturn:
        """Answer requests until the trainer is gone."""
        send_frame(self._link, "ready", self._group.folders if self._group else [])
        poll = select.poll()
        for descriptor in (self._link.fileno(), self._parent, self._zygote.fileno()):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._parent in ready or self._zygote.fileno() in ready:
                raise ZygoteGone("the trainer or the fork server ended")
            run_id, *request = receive_frame(self._link)
            if request:
                limits, payload, stdin = request
                send_frame(self._link, "result", *self._run(run_id, limits, payload, stdin, poll))
            else:  # too late a cancellation, or one ahead of its run
                self._cancelled = run_id

    def close(self) -> None:
        """End the fork server with every run, and remove its control group."""
        os.kill(self._zygote_pid, signal.SIGKILL)
        os.waitpid(self._zygote_pid, 0)
        if self._group is not None:
            self._group.close()

    def _run(
        self, run_id: int, limits: tuple[Any, ...], payload: bytes, stdin: bytes, poll: select.poll
    ) -> tuple[dict[str, object], list[bytes]]:
        run = self._begin(run_id, limits, payload, stdin, poll)
        if run.run_id == self._cancelled:
            self._stop(run, "cancelled")
        while not run.ended:
            for descriptor, _ in poll.poll(self._patience_ms(run)):
                self._handle(run, descriptor)
            if not run.ended:
                self._enforce(run)
        run.streams.drain()
        return _answer(run, self._peak_kib(run))

    def _peak_kib(self, run: Run) -> int:
        """What the control group saw; also learns whether the kernel killed for it."""
        if self._group is None:
            return 0
        if run.stopped is None and self._group.killed_for_memory():
            run.stopped = "memory"
        return self._group.peak_bytes() // 1024

    def _begin(
        self, run_id: int, limit_fields: tuple[Any, ...], payload: bytes, stdin: bytes, poll: select.poll
    ) -> Run:
        limits, packed = _limits(limit_fields)
        if self._group is not None:
            most_bytes = (limits.memory_mb + limits.disk_mb) * _MB
            self._group.begin(memory_bytes=most_bytes, processes=limits.processes)
        pipes = [os.pipe() for _ in range(3)]
        given = [in_memory(payload), in_memory(stdin), *(write for _, write in pipes)]
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, DESCRIPTORS.pack(*given))
        self._zygote.sendmsg([packed], [rights])
        for descriptor in given:
            os.close(descriptor)
        out, err, reply = (read for read, _ in pipes)
        readable = {"stdout": out, "stderr": err, "reply": reply}
        limit_bytes = limits.output_kb * 1024
        streams = OutputStreams(readable, limit_bytes, poll, heading={"reply": STARTED.size})
        return Run(limits, run_id, streams)

    def _patience_ms(self, run: Run) -> float:
        if not run.streams.watched:
            return 1000 * _SHORT_S
        return 1000 * max(min(_SAMPLE_S, run.deadline_s - time.monotonic()), 0)

    def _handle(self, run: Run, descriptor: int) -> None:
        if run.streams.owns(descriptor):
            run.streams.fill(descriptor)
            if run.streams.over:
                self._stop(run, "output")
        elif descriptor == self._zygote.fileno():
            run.ended = self._zygote.recv(ENDED.size)
            if not run.ended:
                raise ZygoteGone("the fork server ended during a run")
        elif descriptor == self._link.fileno():
            (cancelled,) = receive_frame(self._link)
            if cancelled == run.run_id:
                self._stop(run, "cancelled")
        else:
            raise ZygoteGone("the trainer ended")

    def _enforce(self, run: Run) -> None:
        now = time.monotonic()
        if not run.streams.watched:
            run.streams.watch()
        elif run.next_sample_s is None and run.started and not run.stopped:
            _, started_s, _ = STARTED.unpack(run.streams.heading("reply"))
            run.next_sample_s = now + _SAMPLE_S
            run.deadline_s = min(run.deadline_s, started_s + run.limits.wall_s)
        if now >= run.deadline_s:
            if run.stopped:
                raise ZygoteGone("a killed run did not end")
            self._stop(run, "wall" if run.started else "setup")
        elif run.next_sample_s is not None and now >= run.next_sample_s and not run.stopped:
            run.next_sample_s = now + _SAMPLE_S
            if self._group is not None and self._group.killed_for_memory():
                self._stop(run, "memory")
                return
            usage = tree_usage(self._zygote_pid, shared_bytes=self._shared_bytes)
            if usage.memory_bytes > run.limits.memory_mb * _MB:
                self._stop(run, "memory")
            elif usage.cpu_s > run.limits.cpu_limit_s:
                self._stop(run, "cpu")

    def _stop(self, run: Run, why: str) -> None:
        if run.stopped is None:
            run.stopped = why
            run.deadline_s = time.monotonic() + _GRACE_S
            self._zygote.send(KILL)


def _make_group(pid: int, given: str) -> "ControlGroup | None":
    """A control group with the fork server in it, where there is a place for one."""
    from verl_lite.sandbox._cgroup import ControlGroup, Unavailable  # the fork server has been started

    try:
        group = ControlGroup(given)
    except Unavailable:
        return None
    try:
        group.enter(pid)
    except OSError:
        group.close()
        return None
    return group


def _answer(run: Run, group_peak_kib: int) -> tuple[dict[str, object], list[bytes]]:
    outputs = [run.streams.data(name) for name in ("stdout", "stderr", "reply")]
    if not run.started:
        if run.stopped == "cancelled":
            return {"status": Status.KILLED.value, "message": "cancelled by the caller"}, outputs
        report = (run.streams.heading("reply") + outputs[2]).removeprefix(IS_FAILED)
        reason = report.decode(errors="replace") or "the run did not start"
        return {"status": Status.SANDBOX_ERROR.value, "message": reason}, outputs
    _, started_s, setup_cpu_s = STARTED.unpack(run.streams.heading("reply"))
    wait_status, ended_s, cpu_s, peak_kib = ENDED.unpack(run.ended)
    cpu_s = max(cpu_s - setup_cpu_s, 0.0)
    peak_kib = max(peak_kib, group_peak_kib)
    code = os.waitstatus_to_exitcode(wait_status)
    seen = Observation(code, cpu_s, peak_kib / 1024, outputs[1], run.streams.over, run.stopped)
    ending = judge(seen, run.limits)
    header = {"status": ending.status.value, "exit_code": ending.exit_code, "message": ending.message}
    measured = {"wall_s": ended_s - started_s, "cpu_s": cpu_s, "peak_memory_mb": peak_kib / 1024}
    return {**header, **measured}, outputs


@lru_cache(maxsize=64)
def _limits(fields: tuple[Any, ...]) -> tuple[Limits, bytes]:
    """A run's limits from their values in order, and what of them the fork server needs."""
    limits = Limits(**dict(zip(Limits.__slots__, fields, strict=True)))
    cell = CellLimits(
        memory_bytes=limits.memory_mb * _MB,
        cpu_s=math.ceil(limits.cpu_limit_s) + 1,  # a second net: the kernel counts this one by the tick
        processes=limits.processes,
        file_bytes=limits.file_size_mb * _MB,
        disk_bytes=limits.disk_mb * _MB,
        open_files=limits.open_files,
    )
    return limits, cell.pack()


def _start_zygote(options: dict[str, object], ours: list[int]) -> tuple[_socket.socket, int]:
    near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    as_root = os.geteuid() == 0
    zygote = ZygoteOptions(
        staging="/tmp",
        paths=_rootfs.view_paths(options["paths"]),  # type: ignore[arg-type]
        uid=_UNUSED_UIDS + os.getpid() if as_root else 1000,
        gid=_UNUSED_UIDS + os.getpid() if as_root else 1000,
        outer_uid=os.geteuid(),
        outer_gid=os.getegid(),
        as_root=as_root,
        network_per_run=bool(options["network_per_run"]),
        preload=options["preload"],  # type: ignore[arg-type]
        module_paths=options["paths"],  # type: ignore[arg-type]
    )
    flags = _ZYGOTE_NAMESPACES | (0 if as_root else _kernel.CLONE_NEWUSER)
    pid = _kernel.clone_process(flags)
    if pid == 0:
        _kernel.prctl(_kernel.PR_SET_PDEATHSIG, 9)
        near.close()
        for descriptor in ours:
            os.close(descriptor)
        serve(far, zygote)
    far.close()
    return near, pid


def main(link_fd: int, parent_pid: int, options_text: str) -> NoReturn:
    """Entry point of the process; `link_fd` is a socket to the trainer `parent_pid`."""
    link = _socket.socket(fileno=link_fd)
    try:
        parent = os.pidfd_open(parent_pid)
        supervisor = Supervisor(link, parent, json.loads(options_text))
        try:
            supervisor.serve()
        finally:
            supervisor.close()
    except (EOFError, BrokenPipeError, ConnectionError):
        sys.exit(0)  # the trainer is gone
    except (ZygoteGone, OSError, ValueError) as error:
        send_frame(link, "fault", f"{type(error).__name__}: {error}")
        sys.exit(1)
