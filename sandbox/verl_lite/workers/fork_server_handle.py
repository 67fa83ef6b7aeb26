"""The parent's handle to the fork server: start it, fork workers, learn how they ended."""

import contextlib
import os
import pickle
import select
import socket
import subprocess
import sys

from verl_lite.errors import VerlLiteError
from verl_lite.workers.progress import ProgressPage
from verl_lite.workers.worker_handle import WorkerHandle

END_S = 5.0


class WorkerStartError(VerlLiteError, RuntimeError):
    """The fork server could not import or prepare what its workers need."""


class ForkServerHandle:
    """A fork server for up to `workers` workers at a time.

    It imports `entry` ("module:function") and calls it with `argument`, which is pickled. The
    function returns a `Serve`, which every worker runs. The server starts in the background: nothing is
    forked before `wait_ready` is True. `dies_with_thread`: see `fork_server.main`; only for a thread
    that outlives the server.
    """

    def __init__(self, entry: str, argument: object, *, workers: int, dies_with_thread: bool = False) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._page = ProgressPage.create(workers)
        self._entry = entry
        self._next_key = 0
        self._workers: dict[int, WorkerHandle] = {}  # until they are known to have ended
        self.is_ready = False
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from verl_lite.workers.fork_server import main; "
            f"main({os.getpid()}, {theirs.fileno()}, {self._page.fd}, {workers}, {dies_with_thread})"
        )
        # One thread per worker: there is one worker per core, and forking is safest without threads.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), self._page.fd),
            env=threads | os.environ,
            start_new_session=True,  # Ctrl-C in the terminal is the parent's to handle
        )
        theirs.close()
        self.pid = self._process.pid
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
            pickle.dump((entry, argument), pipe, 5)

    def wait_ready(self, timeout_s: float) -> bool:
        """Whether it is ready to fork, after at most `timeout_s`. Raises WorkerStartError if it failed."""
        if self.is_ready or not self._has_message(timeout_s):
            return self.is_ready
        answer = self.control.recv(1 << 20)
        if not answer:
            raise WorkerStartError(
                f"the fork server ended with exit code {self._process.wait()} while it imported {self._entry}"
            )
        word, why = pickle.loads(answer)
        if word == "failed":
            raise WorkerStartError(why)
        self.is_ready = True
        return True

    def fork(self, index: int) -> WorkerHandle:
        """A new worker with slot `index` of the progress page. It accepts jobs before the process exists."""
        ours, theirs = socket.socketpair()
        output_fd, printed_fd = os.pipe()
        ours.setblocking(False)
        os.set_blocking(output_fd, False)
        self._next_key += 1
        worker = WorkerHandle(self._next_key, index, self._page.slots[index], ours, output_fd)
        worker.slot.clear()
        self._workers[worker.key] = worker
        with contextlib.suppress(OSError):  # the server is gone: `exits` says so next
            request = pickle.dumps(("fork", worker.key, index), 5)
            socket.send_fds(self.control, [request], [theirs.fileno(), printed_fd])
        theirs.close()
        os.close(printed_fd)
        return worker

    def kill(self, worker: WorkerHandle) -> None:
        """Kill the worker and everything it started; `exits` names it later."""
        with contextlib.suppress(OSError):
            self.control.send(pickle.dumps(("kill", worker.key), 5))

    def exits(self, timeout_s: float = 0.0) -> list[WorkerHandle] | None:
        """The workers that ended since the last call, after at most `timeout_s`; None if the server is gone.

        Also fills in `pid` and `exit_status` of the handles.
        """
        ended: list[WorkerHandle] = []
        while self._has_message(0.0 if ended else timeout_s):
            try:
                message = self.control.recv(1 << 16)
            except OSError:  # it was killed with requests unread
                message = b""
            if not message:
                return ended or None
            word, key, number = pickle.loads(message)
            if word == "forked":
                self._workers[key].pid = number
            else:
                worker = self._workers.pop(key)
                worker.exit_status = number
                ended.append(worker)
        return ended

    def _has_message(self, timeout_s: float) -> bool:
        poller = select.poll()  # not select.select, which refuses descriptors above 1023
        poller.register(self.control, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))

    def abort(self) -> None:
        """Kill it while it still imports; callable from another thread."""
        self._process.kill()

    def close(self) -> None:
        """End the server, which first kills its workers and everything they left behind."""
        if not self.is_ready:
            self.abort()
        self.control.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._page.close()

    def forget(self) -> None:
        """In a forked child, which does not own the server: close only this process's ends."""
        self.control.close()
        self._page.close()
        self._process.returncode = 0  # not ours to reap
