"""Kills a run's child processes if the run is killed: Ray's agents outlive their driver by a minute.

The watchdog is a separate process that reads a pipe from the run and keeps a list of the run's
descendants, which cannot be found after its death. If the pipe closes without a message, the run has died,
and the watchdog kills the descendants that are still alive.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

POLL_S = 1.0  # how often the list of descendants is renewed
GRACE_S = 1.0  # how long they have to exit by themselves

Process = tuple[int, str]  # process id and start time, as ids are reused


class Watchdog:
    """Watches every process that starts below this one after the watchdog itself."""

    def __init__(self) -> None:
        before = [str(pid) for pid, _ in descendants(os.getpid())]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), *before],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C does not reach it
        )

    def close(self) -> None:
        """Stop the watchdog without killing anything."""
        self._process.communicate(b"close")


def descendants(root: int, exclude: frozenset[int] = frozenset()) -> set[Process]:
    """All processes below `root`, except those in `exclude` and their descendants."""
    children: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                children.setdefault(int(fields[1]), []).append((int(entry), fields[19].decode()))
    found: set[Process] = set()
    queue = [root]
    while queue:
        below = [child for child in children.get(queue.pop(), []) if child[0] not in exclude]
        found.update(below)
        queue += [pid for pid, _ in below]
    return found


def _is_alive(process: Process) -> bool:
    pid, started = process
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return fields[19].decode() == started and fields[0] != b"Z"


def _watch(root: int, exclude: frozenset[int]) -> None:
    known: set[Process] = set()
    while os.getppid() == root:  # a fork of the run may keep the pipe open
        known = {process for process in known if _is_alive(process)} | descendants(root, exclude)
        ready, _, _ = select.select([sys.stdin], [], [], POLL_S)
        if ready:
            if os.read(sys.stdin.fileno(), 16):
                return
            break
    known |= {child for pid, _ in known for child in descendants(pid)}
    kill_after_grace(known)


def kill_after_grace(processes: set[Process]) -> None:
    """Kill the processes that do not exit by themselves within GRACE_S."""
    deadline = time.monotonic() + GRACE_S
    while any(map(_is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in processes:
        if _is_alive(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process[0], signal.SIGKILL)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), frozenset([os.getpid(), *map(int, sys.argv[2:])]))
