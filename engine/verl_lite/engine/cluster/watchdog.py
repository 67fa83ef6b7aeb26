"""Ends what a run started when the run itself was killed: Ray's agents outlive their driver by a minute.

The watchdog is a process of its own that reads a pipe from the run. Meanwhile it keeps the list of
the run's descendants (after the run's death nothing leads to them any more). When the pipe ends
without a word, the run died: whatever of them is still there is killed.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

__all__ = ["Process", "Watchdog", "descendants", "end"]

LOOK_S = 1.0  # how often the list of descendants is renewed
GRACE_S = 1.0  # how long they have to end by themselves

Process = tuple[int, str]  # process id and start time: ids are used again


class Watchdog:
    """Start it before what it is to watch: everything that starts later below this process is."""

    def __init__(self) -> None:
        before = [str(pid) for pid, _ in descendants(os.getpid())]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), *before],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is not meant for it
        )

    def close(self) -> None:
        """The run ends in order: nothing is killed."""
        self._process.communicate(b"close")


def descendants(root: int, leave: frozenset[int] = frozenset()) -> set[Process]:
    """All processes below `root`, without those in `leave` and what is below them."""
    children: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                children.setdefault(int(fields[1]), []).append((int(entry), fields[19].decode()))
    found: set[Process] = set()
    queue = [root]
    while queue:
        below = [child for child in children.get(queue.pop(), []) if child[0] not in leave]
        found.update(below)
        queue += [pid for pid, _ in below]
    return found


def _is_there(process: Process) -> bool:
    pid, started = process
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return fields[19].decode() == started and fields[0] != b"Z"


def _watch(root: int, leave: frozenset[int]) -> None:
    known: set[Process] = set()
    while os.getppid() == root:  # a fork of the run may hold its end of the pipe
        known = {process for process in known if _is_there(process)} | descendants(root, leave)
        ready, _, _ = select.select([sys.stdin], [], [], LOOK_S)
        if ready:
            if os.read(sys.stdin.fileno(), 16):
                return
            break
    known |= {child for pid, _ in known for child in descendants(pid)}
    end(known)


def end(processes: set[Process]) -> None:
    """Kill those that do not end by themselves within GRACE_S."""
    deadline = time.monotonic() + GRACE_S
    while any(map(_is_there, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in processes:
        if _is_there(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process[0], signal.SIGKILL)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), frozenset([os.getpid(), *map(int, sys.argv[2:])]))
