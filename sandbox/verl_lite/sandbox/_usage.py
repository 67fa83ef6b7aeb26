"""A run's memory and CPU time, summed over its processes, from the host's /proc.

The kernel's limits are per process: a run with 16 processes could use 16 times as much.
"""

import os
from dataclasses import dataclass

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """Sums over the descendants of a process."""

    memory_bytes: int
    cpu_s: float


def tree_usage(root: int, *, shared_bytes: int) -> TreeUsage:
    """Usage of the descendants of process `root`, without `root`.

    `shared_bytes` is the memory that each process shares with the fork server; it is not counted.
    Processes that end meanwhile are left out.
    """
    memory, cpu_s = 0, 0.0
    waiting = _children(root)
    while waiting:
        pid = waiting.pop()
        try:
            memory += max(private_bytes(pid) - shared_bytes, 0)
            cpu_s += _cpu_s(pid)
        except (OSError, ValueError, IndexError):
            continue
        waiting += _children(pid)
    return TreeUsage(memory, cpu_s)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    except OSError:
        pass  # it has ended
    return found


def private_bytes(pid: int) -> int:
    """The anonymous and shared memory that process `pid` holds in RAM."""
    total_kib = 0
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(("RssAnon:", "RssShmem:")):
                total_kib += int(line.split()[1])
    return total_kib * 1024


def _cpu_s(pid: int) -> float:
    """User and system seconds of a process and of the children it has waited for."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S
