"""The limits and the result of a run. Frozen, so threads can share them."""

from dataclasses import dataclass, field
from enum import StrEnum

REPLY_FD = 3
"""The file descriptor a program writes its reply to, apart from what it prints."""

SANDBOX_VERSION = 3
"""Incremented with every change that may alter a result. Caches of verdicts include it in their keys."""


class Status(StrEnum):
    """How a run ended. `SANDBOX_ERROR` is the sandbox's fault and says nothing about the program."""

    OK = "ok"  # exit code 0
    ERROR = "error"  # another exit code; an uncaught exception is 1
    TIMEOUT = "timeout"  # exceeded its wall-clock or CPU time
    MEMORY = "memory"  # exceeded its memory
    OUTPUT_LIMIT = "output_limit"  # exceeded output_kb on stdout, stderr or the reply
    KILLED = "killed"  # ended by a signal: a crash, or a cancellation
    SANDBOX_ERROR = "sandbox_error"  # the program did not run, or not to its end


STACKS_MB = 640
"""Address space that stacks of threads may reserve beyond `Limits.memory_mb`; what they touch counts."""

_MAX_S = 10_000_000  # 115 days: accepted by every timer
_WHOLE_NUMBERS = "memory_mb processes file_size_mb output_kb disk_mb open_files compile_memory_mb".split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one run. `cpu_s=None` means `wall_s`: one core for the whole time.

    `memory_mb` limits what a run holds in memory: all its processes together, what they share, files in
    /tmp, buffers of pipes and sockets. `processes` includes threads. `file_size_mb` limits one file,
    `disk_mb` all files together. `output_kb` limits each of stdout, stderr and the reply; a run
    is stopped only when it writes 64 times as much to stderr. `compile_wall_s`
    and `compile_memory_mb` are the compiler's, which has its own. Raises ValueError for a value out of
    range.
    """

    wall_s: float = 5.0
    cpu_s: float | None = None
    memory_mb: int = 512
    processes: int = 16
    file_size_mb: int = 16
    output_kb: int = 1024
    open_files: int = 64
    disk_mb: int = 64
    compile_wall_s: float = 30.0
    compile_memory_mb: int = 1024

    def __post_init__(self) -> None:
        for name in _WHOLE_NUMBERS:
            value = getattr(self, name)
            if type(value) is not int or value <= 0:
                raise ValueError(f"Limits.{name}={value!r}: expected a whole number above 0")
        times = {"wall_s": self.wall_s, "cpu_s": self.cpu_limit_s, "compile_wall_s": self.compile_wall_s}
        for name, seconds in times.items():
            if not (type(seconds) in (int, float) and 0 < seconds < _MAX_S):
                raise ValueError(
                    f"Limits.{name}={seconds!r}: expected a number of seconds above 0 and below {_MAX_S}"
                )
        if self.open_files < 8:
            raise ValueError(
                f"Limits.open_files={self.open_files}: expected at least 8; Python itself opens 4"
            )

    @property
    def cpu_limit_s(self) -> float:
        """The effective CPU limit in seconds: `cpu_s`, or `wall_s` where that is None."""
        return self.wall_s if self.cpu_s is None else self.cpu_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a run. `exit_code` is the program's, or minus the signal number when a signal ended
    it; None when it never started or was stopped before it returned one.

    `wall_s` and `cpu_s` exclude the sandbox's set-up. `peak_memory_mb` is the largest resident set of
    any of its processes; with a control group, the peak of all processes and files in /tmp together.
    `message` says why the status is not ok.
    """

    status: Status
    exit_code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    reply: bytes = b""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_mb: float = 0.0
    message: str = field(default="")
