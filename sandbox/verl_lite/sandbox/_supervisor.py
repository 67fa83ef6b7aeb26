"""The process between the trainer and the fork server: starts runs, reads their output, stops them.

It is started fresh, so it never held the trainer's memory. It enforces the limits itself, so a busy
trainer cannot delay them. It ends when the trainer does, and everything below ends with it.
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
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NoReturn

from verl_lite.sandbox import _kernel, _rootfs
from verl_lite.sandbox._confinement import KernelLimits, become_ordinary, unused_uid
from verl_lite.sandbox._exit_status import Observation, classify_exit
from verl_lite.sandbox._fork_server import (
    DESCRIPTORS,
    ENDED,
    IS_FAILED,
    IS_STARTED,
    KILL,
    LISTENER,
    STARTED,
    ForkServerOptions,
    serve,
)
from verl_lite.sandbox._streams import OutputStreams
from verl_lite.sandbox._usage import Meter, longest_wait_s, read_process
from verl_lite.sandbox._wire import receive_descriptor, receive_frame, send_frame
from verl_lite.sandbox.limits import Limits, Status

if TYPE_CHECKING:
    from verl_lite.sandbox._shared_host import SharedHost

_MB = 1 << 20
_SAMPLE_S = 0.02  # how often a run's memory and CPU time are sampled, while it is far from its limit
_IDLE_SAMPLE_S = 0.1  # the same for an interactive run that uses no CPU time
_SHORT_S = 0.006  # most runs are over by then; until then output waits in its pipes
_SETUP_S = 20.0  # a run that has not started by then is a sandbox fault
_GRACE_S = 5.0  # a run whose processes still exist so long after they were killed is given up
_FORK_SERVER_NAMESPACES = (
    _kernel.CLONE_NEWPID
    | _kernel.CLONE_NEWNS
    | _kernel.CLONE_NEWIPC
    | _kernel.CLONE_NEWUTS
    | _kernel.CLONE_NEWNET
)


class ForkServerGone(Exception):
    """The trainer or the fork server ended: this supervisor must end too."""


@dataclass
class Run:
    limits: Limits
    run_id: int
    streams: OutputStreams
    deadline_s: float = field(default_factory=lambda: time.monotonic() + _SETUP_S)
    stopped: str | None = None
    ended: bytes = b""
    given_up: bool = False  # its processes could not be ended: the fork server has to go with them
    next_sample_s: float | None = None  # None until the program starts
    is_interactive: bool = False  # it may wait for its channel for hours
    cpu_s: float = 0.0  # at the last sample
    idle_s: float = _SAMPLE_S  # the interval while it waits

    @property
    def started(self) -> bool:
        return self.streams.header("reply")[:1] == IS_STARTED


class Supervisor:
    """One fork server, one run at a time. `link` is a socket to the trainer, `parent` its pidfd; `host` is
    where runs are without namespaces.
    """

    def __init__(
        self, link: _socket.socket, parent: int, options: dict[str, object], host: "SharedHost | None"
    ) -> None:
        self._link, self._parent, self._host = link, parent, host
        self._cancelled = 0
        self._run_uid = unused_uid() if os.geteuid() == 0 and host is None else None
        self._server, self._server_pid = _start_fork_server(options, host, [link.fileno(), parent])
        # Not before the fork: every run would copy them.
        from verl_lite.sandbox._cgroup import group_with
        from verl_lite.sandbox._memory_file import memory_file
        from verl_lite.sandbox._questions import Questions

        self._memory_file = memory_file
        server = self._server_pid
        tasks = partial(host.tasks, server) if host else None
        self._questions: Questions = Questions(_await_ready(self._server), server, tasks)
        base = read_process(server)
        self._meter = host.meter(server) if host else Meter(server, tmp=_rootfs.TMP_MOUNT, base=base)
        self._group = None if self._host else group_with(server, str(options["groups"]))

    def serve(self) -> NoReturn:
        """Answer requests until the trainer is gone."""
        folders = self._group.folders if self._group else [self._host.folder] if self._host else []
        send_frame(self._link, "ready", folders)
        poll = select.poll()
        watched = (self._link.fileno(), self._parent, self._server.fileno(), self._questions.listener)
        for descriptor in watched:
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._parent in ready or self._server.fileno() in ready:
                raise ForkServerGone("the trainer or the fork server ended")
            run_id, *request = receive_frame(self._link)
            if request:
                limits, program, stdin = request
                given = receive_descriptor(self._link) if stdin is None else self._memory_file(stdin)
                run = self._run(run_id, limits, program, given, poll, is_interactive=stdin is None)
                answer = _result(run, self._peak_kib(run))
                send_frame(self._link, "last result" if run.given_up else "result", *answer)
                if run.given_up:
                    raise ForkServerGone("its last run could not be ended")
            else:  # a cancellation that came too late, or before its run
                self._cancelled = run_id

    def close(self) -> None:
        """Kill the fork server with its run, and remove its control group."""
        if self._host is not None:  # which ends everything
            return
        os.kill(self._server_pid, signal.SIGKILL)
        os.waitpid(self._server_pid, 0)
        if self._group is not None:
            self._group.close()

    def _run(
        self,
        run_id: int,
        limits: tuple[Any, ...],
        program: bytes,
        stdin: int,
        poll: select.poll,
        *,
        is_interactive: bool,
    ) -> Run:
        run = self._start(run_id, limits, program, stdin, poll)
        run.is_interactive = is_interactive
        if run.run_id == self._cancelled:
            self._stop(run, "cancelled")
        while not (run.ended or run.given_up):
            for descriptor, _ in poll.poll(self._poll_timeout_ms(run)):
                self._handle(run, descriptor)
            if not run.ended:
                self._enforce(run)
        if self._host is not None:
            run.given_up |= not self._host.end(self._server_pid, patience_s=_GRACE_S)
        if run.streams.watched:
            _kernel.run_as_others()  # it costs a short run a twentieth of its time
        run.streams.drain()
        if self._host is not None and not run.given_up:
            self._host.clear()
        return run

    def _peak_kib(self, run: Run) -> int:
        """Peak KiB by the control group; also marks the run as stopped if the kernel killed it for memory."""
        if self._group is None:
            return 0
        if run.stopped is None and self._group.killed_for_memory():
            run.stopped = "memory"
        return self._group.peak_bytes() // 1024

    def _start(
        self, run_id: int, limit_fields: tuple[Any, ...], program: bytes, stdin: int, poll: select.poll
    ) -> Run:
        limits, packed = _limits(limit_fields)
        if self._group is not None:
            self._group.begin_run(memory_bytes=limits.memory_mb * _MB, processes=limits.processes)
        self._questions.begin_run()
        pipes = [os.pipe() for _ in range(3)]
        if self._run_uid is not None:  # else a run cannot open /dev/stdout
            for _, write in pipes[:2]:
                os.fchown(write, self._run_uid, self._run_uid)
        given = [self._memory_file(program), stdin, *(write for _, write in pipes)]
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, DESCRIPTORS.pack(*given))
        self._server.sendmsg([packed], [rights])
        for descriptor in given:
            os.close(descriptor)
        out, err, reply = (read for read, _ in pipes)
        readable = {"stdout": out, "stderr": err, "reply": reply}
        limit_bytes = limits.output_kb * 1024
        streams = OutputStreams(readable, limit_bytes, poll, header={"reply": STARTED.size})
        return Run(limits, run_id, streams)

    def _poll_timeout_ms(self, run: Run) -> float:
        if not run.streams.watched:
            return 1000 * _SHORT_S
        now = time.monotonic()
        wait_s = _SAMPLE_S if run.next_sample_s is None or run.stopped else run.next_sample_s - now
        return 1000 * max(min(wait_s, run.deadline_s - now), 0)

    def _handle(self, run: Run, descriptor: int) -> None:
        if run.streams.owns(descriptor):
            run.streams.fill(descriptor)
            if run.streams.over:
                self._stop(run, "output")
        elif descriptor == self._server.fileno():
            run.ended = self._server.recv(ENDED.size)
            if not run.ended:
                self._blame_for_the_server(run)
        elif descriptor == self._questions.listener:
            limits, stopped = run.limits, run.stopped is not None
            if not self._questions.answer(
                limit_bytes=limits.memory_mb * _MB, processes=limits.processes, stopped=stopped
            ):
                self._stop(run, "memory")
            elif run.next_sample_s is not None:
                run.next_sample_s = 0.0  # now: what it has besides counts too
        elif descriptor == self._link.fileno():
            (cancelled,) = receive_frame(self._link)
            if cancelled == run.run_id:
                self._stop(run, "cancelled")
        else:
            raise ForkServerGone("the trainer ended")

    def _enforce(self, run: Run) -> None:
        now = time.monotonic()
        if run.stopped and self._host is not None:
            self._host.end(self._server_pid, patience_s=_SAMPLE_S)  # again: it may only have started since
        if not run.streams.watched:
            run.streams.watch()
            _kernel.run_first()  # the sooner a run is looked at, the less it exceeds its memory
        elif run.next_sample_s is None and run.started and not run.stopped:
            _, started_s, _ = STARTED.unpack(run.streams.header("reply"))
            run.next_sample_s = started_s + longest_wait_s(run.limits.memory_mb * _MB)
            run.deadline_s = min(run.deadline_s, started_s + run.limits.wall_s)
        if now >= run.deadline_s:
            if not run.stopped:
                self._stop(run, "wall" if run.started else "setup")
            elif run.started:
                run.given_up = True
            else:
                raise ForkServerGone("a run that had not started did not end")
        elif run.next_sample_s is not None and now >= run.next_sample_s and not run.stopped:
            self._sample(run)

    def _sample(self, run: Run) -> None:
        limit = run.limits.memory_mb * _MB
        usage = self._meter.measure(
            tmp_bytes=run.limits.disk_mb * _MB, limit_bytes=limit, shared_bytes=self._questions.num_bytes
        )
        interval_s = usage.next_sample_s(limit)
        if run.is_interactive and usage.cpu_s == run.cpu_s:
            interval_s = run.idle_s = min(2 * run.idle_s, _IDLE_SAMPLE_S)
        else:
            run.cpu_s, run.idle_s = usage.cpu_s, _SAMPLE_S
        run.next_sample_s = time.monotonic() + interval_s
        if usage.memory_bytes > limit or (self._group is not None and self._group.killed_for_memory()):
            self._stop(run, "memory")
        elif self._meter.is_full:
            self._stop(run, "disk")
        elif usage.cpu_s > run.limits.cpu_limit_s:
            self._stop(run, "cpu")

    def _blame_for_the_server(self, run: Run) -> None:
        """The fork server is gone: the program's doing if its group was full, for then the kernel chooses."""
        if self._group is None or not run.started or not self._group.killed_for_memory():
            raise ForkServerGone("the fork server ended during a run")
        run.stopped, run.given_up = run.stopped or "memory", True

    def _stop(self, run: Run, why: str) -> None:
        if run.stopped is None:
            run.stopped = why
            run.deadline_s = time.monotonic() + _GRACE_S
            if self._host is None:
                self._server.send(KILL)


def _await_ready(server: _socket.socket) -> int:
    """Wait for a fork server's start; returns the listener of its system-call filter."""
    text, ancillary, _, _ = server.recvmsg(4096, _socket.CMSG_SPACE(LISTENER.size))
    if text != b"ready":
        reason = text.decode(errors="replace").removeprefix("failed: ")
        raise ForkServerGone(reason or "it ended during its start")
    (listener,) = LISTENER.unpack(ancillary[0][2])
    return int(listener)


def _result(run: Run, group_peak_kib: int) -> tuple[dict[str, object], list[bytes]]:
    outputs = [run.streams.data(name) for name in ("stdout", "stderr", "reply")]
    if not run.started:
        if run.stopped == "cancelled":
            return {"status": Status.KILLED.value, "message": "cancelled by the caller"}, outputs
        report = (run.streams.header("reply") + outputs[2]).removeprefix(IS_FAILED)
        reason = report.decode(errors="replace") or "the run did not start"
        return {"status": Status.SANDBOX_ERROR.value, "message": reason}, outputs
    _, started_s, setup_cpu_s = STARTED.unpack(run.streams.header("reply"))
    ended = run.ended or ENDED.pack(signal.SIGKILL, time.monotonic(), setup_cpu_s, 0)
    wait_status, ended_s, cpu_s, peak_kib = ENDED.unpack(ended)
    cpu_s = max(cpu_s - setup_cpu_s, 0.0)
    peak_kib = max(peak_kib, group_peak_kib)
    code = os.waitstatus_to_exitcode(wait_status)
    seen = Observation(code, cpu_s, peak_kib / 1024, outputs[1], run.streams.over, run.stopped)
    how = classify_exit(seen, run.limits)
    header = {"status": how.status.value, "exit_code": how.exit_code, "message": how.message}
    measured = {"wall_s": ended_s - started_s, "cpu_s": cpu_s, "peak_memory_mb": peak_kib / 1024}
    return {**header, **measured}, outputs


@lru_cache(maxsize=64)
def _limits(fields: tuple[Any, ...]) -> tuple[Limits, bytes]:
    """A run's limits from their field values, and the packed limits for the fork server."""
    limits = Limits(**dict(zip(Limits.__slots__, fields, strict=True)))
    enforced = KernelLimits(
        memory_bytes=limits.memory_mb * _MB,
        cpu_s=math.ceil(limits.cpu_limit_s) + 1,  # a fallback: sampling acts first
        processes=limits.processes,
        file_bytes=limits.file_size_mb * _MB,
        disk_bytes=limits.disk_mb * _MB,
        open_files=limits.open_files,
    )
    return limits, enforced.pack()


def _start_fork_server(
    options: dict[str, object], host: "SharedHost | None", own_fds: list[int]
) -> tuple[_socket.socket, int]:
    near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    as_root = os.geteuid() == 0 and host is None
    server_options = ForkServerOptions(
        folder=host.folder if host else "",
        own_user=host is None or host.own_user,
        paths=_rootfs.root_paths(options["paths"]),  # type: ignore[arg-type]
        uid=unused_uid() if as_root else 1000,
        gid=unused_uid() if as_root else 1000,
        outer_uid=os.geteuid(),
        outer_gid=os.getegid(),
        as_root=as_root,
        network_per_run=bool(options["network_per_run"]),
        preload=options["preload"],  # type: ignore[arg-type]
        libraries=options["libraries"],  # type: ignore[arg-type]
        module_paths=options["paths"],  # type: ignore[arg-type]
    )
    flags = _FORK_SERVER_NAMESPACES | (0 if as_root else _kernel.CLONE_NEWUSER)
    pid = os.fork() if host else _kernel.clone_process(flags)
    if pid == 0:
        _kernel.prctl(_kernel.PR_SET_PDEATHSIG, 9)
        near.close()
        for descriptor in own_fds:
            os.close(descriptor)
        serve(far, server_options)
    far.close()
    return near, pid


def _load_all() -> None:
    """Import now what otherwise is after the fork: the user that this process becomes may not read it."""
    from verl_lite.sandbox import _cgroup, _memory_file, _questions  # noqa: F401


def main(link_fd: int, parent_pid: int, options_text: str) -> NoReturn:
    """Entry point of the process. `link_fd` is a socket to the trainer, process `parent_pid`."""
    link = _socket.socket(fileno=link_fd)
    host = None
    try:
        parent = os.pidfd_open(parent_pid)
        options = json.loads(options_text)
        if os.geteuid() == 0 and not (options["namespaces"] and _kernel.may_make_namespaces()):
            _load_all()
        if not options["namespaces"]:
            from verl_lite.sandbox._shared_host import SharedHost

            host = SharedHost(_rootfs.python_paths() + options["paths"])
        elif os.geteuid() == 0 and not _kernel.may_make_namespaces():
            become_ordinary()
        supervisor = Supervisor(link, parent, options, host)
        try:
            supervisor.serve()
        finally:
            supervisor.close()
    except (EOFError, BrokenPipeError, ConnectionError):
        sys.exit(0)  # the trainer is gone
    except (ForkServerGone, OSError, ValueError) as error:
        send_frame(link, "fault", f"{type(error).__name__}: {error}")
        sys.exit(1)
    finally:
        if host is not None:
            host.close()
