"""What a whole run uses: memory and CPU time summed over its processes, read from the host's /proc.

The kernel's own limits are per process; a run with sixteen processes could use sixteen times as much.
"""

import os
from dataclasses import dataclass

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """Sums over the processes below one."""

    memory_bytes: int
    cpu_s: float
    num_processes: int


def tree_usage(root: int, *, shared_bytes: int) -> TreeUsage:
    """What the descendants of process `root` use, without `root`.

    `shared_bytes` is what a process shares with the fork server when it is forked, and not counted.
    Processes that end while this looks are left out.
    """
    memory, cpu_s, num = 0, 0.0, 0
    waiting = _children(root)
    while waiting:
        pid = waiting.pop()
        try:
            memory += max(private_bytes(pid) - shared_bytes, 0)
            cpu_s += _cpu_s(pid)
        except (OSError, ValueError, IndexError):
            continue
        num += 1
        waiting += _children(pid)
    return TreeUsage(memory, cpu_s, num)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    except OSError:
        pass  # it ended
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
    """User and system time of a process and of the children it has waited for."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S
