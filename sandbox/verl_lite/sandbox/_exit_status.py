"""Classifies how a run ended from what was observed: one pure function, used by every local backend."""

import re
import signal
from dataclasses import dataclass

from verl_lite.sandbox._streams import DRAINED
from verl_lite.sandbox.limits import Limits, Status

# The last line of an uncaught MemoryError (or a subclass such as numpy's) and of C++; of V8, Java, Rust, Go.
_OUT_OF_MEMORY = re.compile(
    rb"(?:^|\n)(?:[\w.]*MemoryError\b[^\n]*|[^\n]*std::bad_alloc[^\n]*)\s*$|JavaScript heap out of memory"
    rb"|java\.lang\.OutOfMemoryError|memory allocation of \d+ bytes failed|runtime: out of memory"
)
_CPU_SLACK_S = 0.05  # the kernel charges CPU time by the tick


@dataclass(frozen=True, slots=True)
class Observation:
    """What was observed of a run that started. `stopped` is why we killed it, if we did.

    `exit_code` is minus the signal's number when a signal ended it.
    """

    exit_code: int
    cpu_s: float
    peak_memory_mb: float
    stderr: bytes
    over_output: str | None = None
    stopped: str | None = None  # "wall" | "cpu" | "memory" | "disk" | "cancelled"


@dataclass(frozen=True, slots=True)
class ExitStatus:
    status: Status
    exit_code: int | None
    message: str


def classify_exit(seen: Observation, limits: Limits) -> ExitStatus:
    """How a run ended: first whether we stopped it, then by its own exit code."""
    code = seen.exit_code
    if seen.stopped == "cancelled":
        return ExitStatus(Status.KILLED, code, "cancelled by the caller")
    if seen.over_output is not None:
        times = f"{DRAINED[seen.over_output]} times " if seen.over_output in DRAINED else ""
        text = f"wrote more than {times}output_kb={limits.output_kb} KiB to {seen.over_output}"
        return ExitStatus(Status.OUTPUT_LIMIT, code, text)
    if seen.stopped == "wall":
        return ExitStatus(Status.TIMEOUT, code, f"ran longer than wall_s={limits.wall_s:g}")
    if seen.stopped == "cpu" or _killed_for_cpu(code, seen.cpu_s, limits):
        return ExitStatus(Status.TIMEOUT, code, f"used more than cpu_s={limits.cpu_limit_s:g} of CPU time")
    if seen.stopped == "memory":
        return ExitStatus(
            Status.MEMORY, code, f"its processes used more than memory_mb={limits.memory_mb} together"
        )
    if seen.stopped == "disk":
        return ExitStatus(
            Status.MEMORY, code, f"its files took more than disk_mb={limits.disk_mb}, or were too many"
        )
    if code == 0:
        return ExitStatus(Status.OK, 0, "")
    if _out_of_memory(code, seen, limits):
        return ExitStatus(Status.MEMORY, code, f"could not get memory within memory_mb={limits.memory_mb}")
    if code < 0:
        return ExitStatus(Status.KILLED, code, f"ended by signal {-code} ({_signal_name(-code)})")
    return ExitStatus(Status.ERROR, code, f"exit code {code}")


def _killed_for_cpu(code: int, cpu_s: float, limits: Limits) -> bool:
    if code == -signal.SIGXCPU:
        return True
    return code == -signal.SIGKILL and cpu_s >= limits.cpu_limit_s - _CPU_SLACK_S


def _out_of_memory(code: int, seen: Observation, limits: Limits) -> bool:
    if _OUT_OF_MEMORY.search(seen.stderr[-4096:]):
        return True
    crashed = code in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT)
    return crashed and seen.peak_memory_mb >= 0.9 * limits.memory_mb


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "real-time"
