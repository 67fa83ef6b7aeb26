"""What a run may use, and what it answers. Frozen, so that one can be shared between threads."""

from dataclasses import dataclass, field
from enum import StrEnum

REPLY_FD = 3
"""The file descriptor a program writes its reply to: printing does not mix with results."""

SANDBOX_VERSION = 2
"""Raised by every change after which a program may end differently: kept verdicts name it in their key."""


class Status(StrEnum):
    """How a run ended. Only `SANDBOX_ERROR` is a fault of ours; it says nothing about the program."""

    OK = "ok"  # exit code 0
    ERROR = "error"  # another exit code, an uncaught exception among them
    TIMEOUT = "timeout"  # over its wall or CPU time
    MEMORY = "memory"  # over its memory
    OUTPUT_LIMIT = "output_limit"  # wrote more than it may to stdout, stderr or the reply
    KILLED = "killed"  # ended by a signal, a crash or a cancellation
    SANDBOX_ERROR = "sandbox_error"  # ours: the program was not run, or not to its end


_MOST_S = 10_000_000  # 115 days: what timers can be given everywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use. `cpu_s=None` means as much as `wall_s`, on one core.

    `memory_mb` bounds each process's address space above what the interpreter itself maps, and the
    sum over all processes of the run. `processes` counts threads too, as the kernel does.
    `file_size_mb` bounds one file, `disk_mb` all files together. `output_kb` bounds stdout, stderr
    and the reply, each.
    """

    wall_s: float = 5.0
    cpu_s: float | None = None
    memory_mb: int = 512
    processes: int = 16
    file_size_mb: int = 16
    output_kb: int = 1024
    open_files: int = 64
    disk_mb: int = 64

    def __post_init__(self) -> None:
        for name in ("memory_mb", "processes", "file_size_mb", "output_kb", "disk_mb", "open_files"):
            value = getattr(self, name)
            if type(value) is not int or value <= 0:
                raise ValueError(f"Limits.{name}={value!r}: expected a whole number above 0")
        for name, seconds in (("wall_s", self.wall_s), ("cpu_s", self.cpu_limit_s)):
            if not (type(seconds) in (int, float) and 0 < seconds < _MOST_S):
                raise ValueError(
                    f"Limits.{name}={seconds!r}: expected a number of seconds above 0 and below {_MOST_S}"
                )
        if self.open_files < 8:
            raise ValueError(
                f"Limits.open_files={self.open_files}: expected at least 8; Python opens 4 itself"
            )

    @property
    def cpu_limit_s(self) -> float:
        """The CPU seconds that count: `cpu_s`, or the wall time where none is given."""
        return self.wall_s if self.cpu_s is None else self.cpu_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run did. `exit_code` is minus the signal's number when a signal ended it, else what the
    program returned; None when it never started or was stopped before it could return one.

    `wall_s` and `cpu_s` are the program's own, without the sandbox's set-up; `peak_memory_mb` is the
    largest resident set of one of its processes, or, where a control group counts it, the most that all
    of them and its files in /tmp held together. `message` says in words why it did not end well.
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
