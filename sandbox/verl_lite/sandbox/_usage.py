"""A run's memory and CPU time, summed over its processes, from the host's /proc.

The kernel's limits are per process: a run with 16 processes could use 16 times as much. And some memory
is in no process: files in /tmp, what pipes and sockets hold.
"""

import contextlib
import os
import signal
from dataclasses import dataclass

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KB, _MB = 1 << 10, 1 << 20
_INODE_BYTES = 1 << 10  # what the kernel needs for a file, besides its contents
_PIPE_BYTES, _FREE_DESCRIPTORS = 64 << 10, 16  # a full pipe has two ends; a program's first ones are free
_BESIDES = ("VmSwap", "HugetlbPages", "VmPTE")
_FILL_BYTES_PER_S = 8 << 30  # how fast programs can touch memory
_FAR_BYTES_PER_S = 20 << 30  # where they map first: two cores touch a fifth of the limit meanwhile
_SAMPLE_S = 0.02
_SHORTEST_S = 0.001


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """Sums over the descendants of a process. `mapped_bytes` is what they could touch without asking."""

    memory_bytes: int
    mapped_bytes: int
    cpu_s: float

    def next_sample_s(self, limit_bytes: int) -> float:
        """In how many seconds to look again: sooner, the nearer the limit, if they could exceed it."""
        if self.mapped_bytes <= limit_bytes:
            return longest_wait_s(limit_bytes)
        return min(max((limit_bytes - self.memory_bytes) / _FILL_BYTES_PER_S, _SHORTEST_S), _SAMPLE_S)


def longest_wait_s(limit_bytes: int) -> float:
    """In how many seconds a run that had nothing could exceed its limit by a fifth."""
    return min(_SAMPLE_S, limit_bytes / _FAR_BYTES_PER_S)


@dataclass(frozen=True, slots=True)
class Process:
    """What one process has, in bytes."""

    mapped: int
    anonymous: int  # in RAM, with what it still shares with the process it was forked from
    besides: int  # swapped out, in huge pages, its page tables

    @property
    def private(self) -> int:
        return self.anonymous + self.besides


class Meter:
    """Measures the descendants of process `root`, without `root`.

    `tmp` is their /tmp as it is in their own root, a tmpfs of `tmp_bytes`. Memory that they share with each
    other or with `root` counts once. Processes that end meanwhile are left out.
    """

    def __init__(self, root: int, *, tmp: str, base: Process | None = None) -> None:
        self._root, self._tmp = root, tmp
        self._base = base or Process(0, 0, 0)

    is_full = False  # whether files took more than `tmp_bytes`, where no mount bounds them

    def measure(self, *, tmp_bytes: int, limit_bytes: int, shared_bytes: int = 0) -> TreeUsage:
        """`shared_bytes` is the shared anonymous memory they have mapped."""
        pids, processes, cpu_s = [], [], 0.0
        waiting = children(self._root)
        while waiting:
            pid = waiting.pop()
            try:
                processes.append(read_process(pid))
                cpu_s += _cpu_s(pid)
                pids.append(pid)
            except (OSError, ValueError, IndexError):
                continue
            waiting += children(pid)
        elsewhere = shared_bytes + self._outside_processes(
            pids, tmp_bytes, unseen=min(tmp_bytes, limit_bytes // 8)
        )
        used = elsewhere + sum(process.private for process in processes)
        alone = max((process.private - self._base.private for process in processes), default=0)
        if used > limit_bytes:
            # They would fill more while we look, or until they end.
            stopped = [pid for pid in pids if _stop(pid)]
            if elsewhere + alone > limit_bytes:  # one process by itself, whatever it shares
                used = elsewhere + alone
            else:  # rarely: exact, and slower
                used = elsewhere + sum(
                    _proportional(pid, process.anonymous) + process.besides
                    for pid, process in zip(pids, processes, strict=True)
                )
            for pid in stopped if used <= limit_bytes else ():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGCONT)
        mapped = elsewhere + sum(max(process.mapped - self._base.mapped, 0) for process in processes)
        mapped += max(len(processes) - 1, 0) * self._base.private
        return TreeUsage(used, mapped, cpu_s)

    def _outside_processes(self, pids: list[int], tmp_bytes: int, unseen: int) -> int:
        """Files in /tmp, and the most that open pipes and sockets can hold; `unseen` for files where no
        process lets us look, as those that are not dumpable.
        """
        found, denied = 0, False
        for pid in reversed(pids):
            try:
                there = os.statvfs(f"/proc/{pid}/root{self._tmp}")
                if there.f_blocks * there.f_frsize != tmp_bytes:
                    continue  # our own process, outside of the run's root
                files = there.f_files - there.f_ffree
                found += (there.f_blocks - there.f_bfree) * there.f_frsize + files * _INODE_BYTES
                found += _num_sockets(pid) * SOCKET_BYTES
                break
            except PermissionError:
                denied = True
            except OSError:
                continue
        else:
            found = unseen if denied else 0
        return found + sum(in_pipes(pid) for pid in pids)


def _stop(pid: int) -> bool:
    """Stop a process; False for one that has stopped itself, which must not be continued, or is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            if file.read().rpartition(")")[2].split()[0] == "T":
                return False
        os.kill(pid, signal.SIGSTOP)
    except OSError:
        return False
    return True


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    return found


def read_process(pid: int) -> Process:
    size = dict.fromkeys(("VmSize", "RssAnon", *_BESIDES), 0)
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in size:
                size[name] = int(value.split()[0]) * _KB
    return Process(size["VmSize"], size["RssAnon"], sum(size[name] for name in _BESIDES))


def _proportional(pid: int, anonymous: int) -> int:
    """Anonymous memory of process `pid`, each page divided by the number of processes that share it;
    `anonymous` where that cannot be read.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next((int(row.split()[1]) * _KB for row in file if row.startswith("Pss_Anon:")), anonymous)
    except (OSError, ValueError, IndexError):
        return anonymous


def _num_sockets(pid: int) -> int:
    """The sockets in the network namespace of `pid`, also those that are open nowhere but on their way."""
    with open(f"/proc/{pid}/net/sockstat", encoding="ascii") as file:
        return int(file.readline().split()[2])


def _socket_bytes() -> int:
    """The most that a socket's buffer holds: a run cannot change its size, and what is written last may be
    half of it.
    """
    try:
        with open("/proc/sys/net/core/wmem_default", encoding="ascii") as file:
            return int(file.read()) * 3 // 2
    except (OSError, ValueError):
        return 212_992 * 3 // 2


SOCKET_BYTES = _socket_bytes()


def in_pipes(pid: int) -> int:
    try:
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0
    return max(descriptors - _FREE_DESCRIPTORS, 0) * _PIPE_BYTES // 2


def _cpu_s(pid: int) -> float:
    """User and system seconds of a process and of the children it has waited for."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S
