"""The nursery as the parent sees it: start it, ask for workers, hear of their ends."""

import contextlib
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from verl_lite.errors import PluginError
from verl_lite.plugins.execution.blueprint import Blueprint
from verl_lite.plugins.execution.progress import ProgressPage

__all__ = ["NurseryHandle"]

LOAD_S = 120.0  # the longest that importing the rewards may take
END_S = 5.0

_START = (
    "import sys; sys.path[:] = {path!r}; "
    "from verl_lite.plugins.execution.nursery import main; main({parent}, {control}, {page}, {workers})"
)


class NurseryHandle:
    """A running nursery. Start it in the thread that stays: it ends when that thread does."""

    def __init__(self, blueprints: Sequence[Blueprint], page: ProgressPage, workers: int) -> None:
        self._blueprints = list(blueprints)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = _START.format(
            path=sys.path, parent=os.getpid(), control=theirs.fileno(), page=page.fd, workers=workers
        )
        # One thread a worker: there is a worker for each core, and forking is safest without others.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), page.fd),
            env=threads | os.environ,
            start_new_session=True,  # Ctrl-C in the terminal is the parent's to handle
        )
        theirs.close()

    def wait_ready(self) -> None:
        """Hand over the blueprints and wait until they are loaded; raises PluginError if one cannot be."""
        assert self._process.stdin is not None
        self.control.settimeout(LOAD_S)
        try:
            with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
                pickle.dump(self._blueprints, pipe, 5)
            answer = self.control.recv(1 << 20)
        except TimeoutError:
            names = ", ".join(blueprint.name for blueprint in self._blueprints)
            raise PluginError(f"importing the rewards took longer than {LOAD_S:g} s: {names}") from None
        if not answer:
            code = self._process.wait()
            raise PluginError(f"the process that imports the rewards ended with exit code {code}")
        _, failures = pickle.loads(answer)
        if failures:
            lines = [
                f"reward {name!r} cannot be loaded in a worker process: {why}"
                for name, why in failures.items()
            ]
            raise PluginError("\n".join(lines))
        self.control.settimeout(None)

    def fork(self, key: int, slot: int, channel_fd: int, output_fd: int) -> None:
        with contextlib.suppress(OSError):  # it is gone: `messages` says so next
            socket.send_fds(self.control, [pickle.dumps(("fork", key, slot), 5)], [channel_fd, output_fd])

    def kill(self, key: int) -> None:
        with contextlib.suppress(OSError):
            self.control.send(pickle.dumps(("kill", key), 5))

    def messages(self) -> list[tuple[Any, ...]] | None:
        """What the nursery reported since; None when it is gone."""
        found: list[tuple[Any, ...]] = []
        while True:
            try:
                message = self.control.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except OSError:
                return found or None
            if not message:
                return found or None
            found.append(pickle.loads(message))

    def abort(self) -> None:
        """Kill it while it still loads; callable from another thread."""
        self._process.kill()

    def close(self) -> None:
        """End it; it kills its workers and all they left behind first."""
        self.control.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
