"""Starts a command with given descriptors and supervises it to its end, within limits.

For backends that start a command per run; the native backend has its own supervisor.
"""

import fcntl
import math
import os
import select
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verl_lite.sandbox._exit_status import ExitStatus, Observation, classify_exit
from verl_lite.sandbox._streams import OutputStreams
from verl_lite.sandbox._usage import Meter
from verl_lite.sandbox.limits import REPLY_FD, STACKS_MB, Limits, Result, Status

_REPORT_FD = 9  # the highest that sh can close by number
_START_S = 30.0
_SAMPLE_S = 0.02
_MB = 1 << 20
_STARTED = "S"  # inside the sandbox, about to start the program
_CLOSED_UP_TO = 1024  # descriptors that other threads may open meanwhile, beyond those open now


@dataclass(frozen=True, slots=True)
class Command:
    """What to run in a sandbox: `words` in the working directory, with the resource limits `options`.

    `made` are files of a compiler, to be made executable first.
    """

    words: Sequence[str]
    limits: Limits
    reserves_memory: bool = False
    extra_processes: int = 0
    made: Sequence[str] = ()

    def shell_command(self) -> list[str]:
        """The command under the kernel's limits; it reports its start on descriptor 9."""
        limits = self.limits
        # A runtime that reserves memory does so for stacks too: what it touches is bounded by sampling.
        memory_mb = limits.memory_mb + (2 * STACKS_MB if self.reserves_memory else 0)
        memory = "--data" if self.reserves_memory else "--as"
        cpu_s = math.ceil(limits.cpu_limit_s) + 1  # a fallback: sampling acts first
        options = [
            f"{memory}={memory_mb * _MB}",
            f"--cpu={cpu_s}:{cpu_s + 1}",
            f"--nproc={limits.processes + self.extra_processes}",
            f"--fsize={limits.file_size_mb * _MB}",
            f"--nofile={limits.open_files}",
            *("--core=0", "--memlock=0", "--msgqueue=0", "--sigpending=256"),
        ]
        steps = [f"printf {_STARTED} >&{_REPORT_FD}", f"exec {_REPORT_FD}>&-"]
        if self.made:
            steps.insert(0, shlex.join(["chmod", "755", *self.made]))
        steps.append(f"exec {shlex.join(['prlimit', *options, '--', *self.words])}")
        return ["sh", "-c", "; ".join(steps)]


class CommandRun:
    """One started command. `given` maps our descriptors to their numbers in the command; they and `stdin` are
    closed once it runs.
    """

    def __init__(
        self, command: Sequence[str], *, limits: Limits, stdin: int, given: Mapping[int, int], tmp: str
    ) -> None:
        self._limits = limits
        self._poll = select.poll()
        pipes = {name: os.pipe() for name in ("stdout", "stderr", "reply", "report")}
        numbers = {"stdout": 1, "stderr": 2, "reply": REPLY_FD, "report": _REPORT_FD}
        handed = {**given, stdin: 0, **{pipes[name][1]: number for name, number in numbers.items()}}
        self._started_s = time.monotonic()
        try:
            self.pid = _spawn(command, handed)
        except BaseException:
            for read, _ in pipes.values():
                os.close(read)
            raise
        finally:
            for descriptor in handed:
                os.close(descriptor)
        self._pidfd = os.pidfd_open(self.pid)
        self._report = pipes["report"][0]
        readable = {name: pipes[name][0] for name in ("stdout", "stderr", "reply")}
        self._streams = OutputStreams(readable, limits.output_kb * 1024, self._poll, header={})
        self._streams.watch()
        for descriptor in (self._pidfd, self._report):
            self._poll.register(descriptor, select.POLLIN)
        self._deadline_s = self._started_s + _START_S
        self._next_sample_s = 0.0
        self._meter = Meter(self.pid, tmp=tmp)
        self._started = False
        self._stopped: str | None = None
        # Sampled: the program is the launcher's child, so wait(2) reports on the launcher only.
        self._cpu_s, self._peak_bytes = 0.0, 0

    def stop(self, why: str = "cancelled") -> None:
        """Kill the command and its process group. Thread-safe."""
        if self._stopped is None:
            self._stopped = why
            for kill in (os.killpg, os.kill):
                try:
                    kill(self.pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue

    def wait(self) -> Result:
        """Read its output and enforce the limits until it has ended."""
        over = False
        while not over:
            wait_s = max(min(self._next_sample_s - time.monotonic(), _SAMPLE_S), 0)
            for descriptor, _ in self._poll.poll(1000 * (wait_s if self._started else _SAMPLE_S)):
                if descriptor == self._pidfd:
                    over = True
                elif descriptor == self._report:
                    self._read_report()
                elif self._streams.owns(descriptor):
                    self._streams.fill(descriptor)
            self._enforce()
        _, status = os.waitpid(self.pid, 0)
        wall_s = time.monotonic() - self._started_s
        os.close(self._pidfd)
        while self._report >= 0:
            self._read_report()
        self._streams.drain()
        return self._result(_exit_code(status), wall_s)

    def _result(self, code: int, wall_s: float) -> Result:
        stderr = self._streams.data("stderr")
        cpu_s, peak_mb = self._cpu_s, self._peak_bytes / _MB
        if self._started or self._stopped is not None:
            seen = Observation(code, cpu_s, peak_mb, stderr, self._streams.over, self._stopped)
            ended = classify_exit(seen, self._limits)
        else:
            ended = _not_started(code, stderr)
        return Result(
            status=ended.status,
            exit_code=ended.exit_code,
            message=ended.message,
            stdout=self._streams.data("stdout"),
            stderr=stderr,
            reply=self._streams.data("reply"),
            wall_s=wall_s,
            cpu_s=cpu_s,
            peak_memory_mb=peak_mb,
        )

    def _read_report(self) -> None:
        data = os.read(self._report, 16).decode()
        if _STARTED in data:
            self._started = True
            self._started_s = time.monotonic()
            self._deadline_s = self._started_s + self._limits.wall_s
        if not data:
            self._poll.unregister(self._report)
            os.close(self._report)
            self._report = -1

    def _enforce(self) -> None:
        if self._streams.over:
            self.stop("output")
        elif time.monotonic() >= self._deadline_s:
            self.stop("wall")
        elif self._started and self._stopped is None and time.monotonic() >= self._next_sample_s:
            self._sample()

    def _sample(self) -> None:
        limit = self._limits.memory_mb * _MB
        usage = self._meter.measure(tmp_bytes=self._limits.disk_mb * _MB, limit_bytes=limit)
        self._next_sample_s = time.monotonic() + usage.next_sample_s(limit)
        self._peak_bytes = max(self._peak_bytes, usage.memory_bytes)
        self._cpu_s = max(self._cpu_s, usage.cpu_s)
        if usage.memory_bytes > limit:
            self.stop("memory")
        elif usage.cpu_s > self._limits.cpu_limit_s:
            self.stop("cpu")


def _not_started(code: int, stderr: bytes) -> ExitStatus:
    reason = stderr.decode(errors="replace").strip()
    return ExitStatus(Status.SANDBOX_ERROR, code, f"the launcher failed (exit code {code}): {reason}")


def _exit_code(wait_status: int) -> int:
    """Launchers and shells return 128 + n for a child ended by signal n; convert that to -n."""
    code = os.waitstatus_to_exitcode(wait_status)
    return 128 - code if code > 128 and code - 128 in _SIGNALS else code


_SIGNALS = {int(number) for number in signal.valid_signals()}


def _spawn(command: Sequence[str], handed: Mapping[int, int]) -> int:
    """Start `command` in its own session, with the `handed` descriptors under their new numbers and no
    other: those that a library opened without close-on-exec would be the program's too.
    """
    # Copies above every number we hand out, so that no dup2 overwrites a descriptor still needed.
    high = {fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64): number for fd, number in handed.items()}
    actions: list[tuple[int, ...]]
    actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for descriptor, number in high.items()]
    open_now = {int(name) for name in os.listdir("/proc/self/fd")} | set(range(_CLOSED_UP_TO))
    actions += [(os.POSIX_SPAWN_CLOSE, number) for number in open_now - set(handed.values())]
    try:
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}  # what a run's init shows
        return os.posix_spawnp(command[0], list(command), environment, file_actions=actions, setsid=True)
    finally:
        for descriptor in high:
            os.close(descriptor)
