"""What this system offers: cores, and whether workers can be forked."""

import os
import sys


def num_cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def can_fork_workers() -> bool:
    """Whether the fork server works here: it needs Linux (memfd_create, prctl, /proc)."""
    return sys.platform == "linux" and hasattr(os, "memfd_create")


def child_pids() -> set[int]:
    """The children of this process; empty where there is no /proc to tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return {int(pid) for pid in file.read().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN, or no Linux
        known = os.listdir("/proc") if os.path.isdir("/proc") else []
        return {pid for pid in map(int, filter(str.isdigit, known)) if _parent_of(pid) == os.getpid()}


def _parent_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
