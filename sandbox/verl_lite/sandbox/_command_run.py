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

from verl_lite.sandbox._exit_status import ExitStatus, Observation, classify_exit
from verl_lite.sandbox._program_files import memory_file
from verl_lite.sandbox._streams import OutputStreams
from verl_lite.sandbox._usage import tree_usage
from verl_lite.sandbox.backend import Request
from verl_lite.sandbox.languages import Language
from verl_lite.sandbox.limits import REPLY_FD, Limits, Result, Status

_REPORT_FD = 9  # the highest that sh can close by number
_COMPILE_S = 30.0
_SAMPLE_S = 0.02
_MB = 1 << 20
_COMPILE_FAILED = 1
_ENTERED, _STARTED = "E", "S"  # inside the sandbox; about to start the program


def limited_command(
    language: Language, limits: Limits, args: Sequence[str], *, extra_processes: int
) -> list[str]:
    """The shell command for a `language` program under the kernel's limits; it reports progress on
    descriptor 9."""
    memory = "--data" if language.reserves_memory else "--as"
    cpu_s = math.ceil(limits.cpu_limit_s) + 1  # a fallback: sampling acts first
    options = [
        f"{memory}={limits.memory_mb * _MB}",
        f"--cpu={cpu_s}:{cpu_s + 1}",
        f"--nproc={limits.processes + extra_processes}",
        f"--fsize={limits.file_size_mb * _MB}",
        f"--nofile={limits.open_files}",
        "--core=0",
    ]
    limited = shlex.join(["prlimit", *options, "--", *language.run, *args])
    compiling = [f"{shlex.join(language.compile)} >&2 || exit {_COMPILE_FAILED}"] if language.compile else []
    report = f">&{_REPORT_FD}"
    steps = [f"printf {_ENTERED} {report}", *compiling, f"printf {_STARTED} {report}"]
    return ["sh", "-c", "; ".join([*steps, f"exec {_REPORT_FD}>&-", f"exec {limited}"])]


class CommandRun:
    """One started command. `given` maps our descriptors to their numbers in the command."""

    def __init__(self, command: Sequence[str], request: Request, given: Mapping[int, int]) -> None:
        self._limits = request.limits
        self._poll = select.poll()
        pipes = {name: os.pipe() for name in ("stdout", "stderr", "reply", "report")}
        numbers = {"stdout": 1, "stderr": 2, "reply": REPLY_FD, "report": _REPORT_FD}
        self._stdin = memory_file(request.stdin)
        handed = {**given, self._stdin: 0, **{pipes[name][1]: number for name, number in numbers.items()}}
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
        self._streams = OutputStreams(readable, request.limits.output_kb * 1024, self._poll, header={})
        self._streams.watch()
        for descriptor in (self._pidfd, self._report):
            self._poll.register(descriptor, select.POLLIN)
        self._deadline_s = self._started_s + _COMPILE_S
        self._reached = ""
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
            for descriptor, _ in self._poll.poll(1000 * _SAMPLE_S):
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
        if _STARTED in self._reached or self._stopped is not None:
            seen = Observation(code, cpu_s, peak_mb, stderr, self._streams.over, self._stopped)
            ended = classify_exit(seen, self._limits)
        else:
            ended = _not_started(code, stderr, entered=_ENTERED in self._reached)
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
        self._reached += data
        if _STARTED in data:
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
        elif _STARTED in self._reached:
            usage = tree_usage(self.pid, shared_bytes=0)
            self._peak_bytes = max(self._peak_bytes, usage.memory_bytes)
            self._cpu_s = max(self._cpu_s, usage.cpu_s)
            if usage.memory_bytes > self._limits.memory_mb * _MB:
                self.stop("memory")
            elif usage.cpu_s > self._limits.cpu_limit_s:
                self.stop("cpu")


def _not_started(code: int, stderr: bytes, *, entered: bool) -> ExitStatus:
    if entered:
        return ExitStatus(Status.ERROR, code, f"the compiler's exit code {code}")
    reason = stderr.decode(errors="replace").strip()
    return ExitStatus(Status.SANDBOX_ERROR, code, f"the launcher failed (exit code {code}): {reason}")


def _exit_code(wait_status: int) -> int:
    """Launchers and shells return 128 + n for a child ended by signal n; convert that to -n."""
    code = os.waitstatus_to_exitcode(wait_status)
    return 128 - code if code > 128 and code - 128 in _SIGNALS else code


_SIGNALS = {int(number) for number in signal.valid_signals()}


def _spawn(command: Sequence[str], handed: Mapping[int, int]) -> int:
    """Start `command` in its own session, with the `handed` descriptors under their new numbers."""
    # Copies above every number we hand out, so that no dup2 overwrites a descriptor still needed.
    high = {fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64): number for fd, number in handed.items()}
    actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for descriptor, number in high.items()]
    try:
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"}
        return os.posix_spawnp(command[0], list(command), environment, file_actions=actions, setsid=True)
    finally:
        for descriptor in high:
            os.close(descriptor)
