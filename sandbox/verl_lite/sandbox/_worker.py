"""The trainer's end of one supervisor process: start it, exchange one run, kill it."""

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import threading
from dataclasses import astuple
from pathlib import Path
from typing import Any

from verl_lite.errors import SandboxError
from verl_lite.sandbox._cgroup import PLACE_VARIABLE, remove
from verl_lite.sandbox._payload import pack
from verl_lite.sandbox._rootfs import WORK_DIR, base_python
from verl_lite.sandbox._wire import receive_frame, send_frame
from verl_lite.sandbox.backend import Request
from verl_lite.sandbox.limits import Limits, Result, Status

# The room is imported by its path, without running its __init__ or site: what is not loaded in the
# fork server is not copied by each fork.
# Names of the C library are looked up when it starts: a run that was first to need one would pay for it.
_BOOT = """
import os, sys, types
del os.environ["LD_BIND_NOW"]
room, namespace, link, parent, options = sys.argv[1:]
for name, path in (("verl_lite", namespace), ("verl_lite.sandbox", room)):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
sys.argv[:] = ["sandbox"]
from verl_lite.sandbox._supervisor import main
main(int(link), int(parent), options)
"""
_START_TIMEOUT_S = 30.0
_ANSWER_SLACK_S = 30.0  # beyond the wall limit: set-up and kill, each bounded by the supervisor itself


class Worker:
    """One supervisor with its fork server. Used by one thread at a time; `cancel` and `kill` by any."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._send_lock = threading.Lock()
        self._groups: list[str] = []
        self._link, far = socket.socketpair()
        with far:
            self._process = _spawn(far.fileno(), options)
        self._link.settimeout(_START_TIMEOUT_S)
        try:
            kind, said = receive_frame(self._link)
        except (OSError, EOFError) as error:
            self.kill()
            raise SandboxError(f"the sandbox's process did not start: {error}") from error
        if kind == "fault":
            self.kill()
            raise SandboxError(f"cannot isolate programs here: {said}; see `verl-lite doctor`")
        self._groups = said

    @property
    def closed(self) -> bool:
        """Whether it was killed, as after each fault."""
        return self._link.fileno() < 0

    @property
    def alive(self) -> bool:
        """Whether it can take a run."""
        return not self.closed and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    def run(self, request: Request, run_id: int) -> Result:
        """Run one program. A fault of ours is a `sandbox_error` result, and this worker then is dead."""
        payload = pack(request.source, request.args, request.files)
        self._link.settimeout(request.limits.wall_s + _ANSWER_SLACK_S)
        try:
            with self._send_lock:
                send_frame(self._link, run_id, _values(request.limits), payload, request.stdin)
            kind, *answer = receive_frame(self._link)
        except (OSError, EOFError, ValueError) as error:
            self.kill()
            return Result(status=Status.SANDBOX_ERROR, message=f"the sandbox's process failed: {error!r}")
        except BaseException:  # an interrupt of the caller: nothing of the run may go on
            self.kill()
            raise
        if kind == "fault":
            self.kill()
            return Result(status=Status.SANDBOX_ERROR, message=answer[0])
        return _result(*answer)

    def cancel(self, run_id: int) -> None:
        """Stop run `run_id` if it is the one in progress."""
        with self._send_lock, contextlib.suppress(OSError):
            send_frame(self._link, run_id)

    def abandon(self) -> None:
        """In a forked child: let go of what belongs to the parent, without stopping it."""
        self._link.close()
        self._process.returncode = 0  # not ours to wait for

    def kill(self) -> None:
        """End the processes at once, with every program in them."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        remove(self._groups)  # it was killed before it could
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in `run`
        self._link.close()


@functools.lru_cache(maxsize=64)
def _values(limits: Limits) -> tuple[Any, ...]:
    return astuple(limits)


def _result(ending: dict[str, Any], outputs: list[bytes]) -> Result:
    stdout, stderr, reply = outputs
    status = Status(ending.pop("status"))
    return Result(status=status, stdout=stdout, stderr=stderr, reply=reply, **ending)


def _spawn(link_fd: int, options: dict[str, Any]) -> subprocess.Popen[bytes]:
    room = Path(__file__).parent
    given = json.dumps({**options, "groups": os.environ.get(PLACE_VARIABLE, "")})
    arguments = [str(room), str(room.parent), str(link_fd), str(os.getpid()), given]
    return subprocess.Popen(
        [base_python(), "-s", "-P", "-S", "-c", _BOOT, *arguments],
        pass_fds=[link_fd],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={**clean_environment(), "LD_BIND_NOW": "1"},
        start_new_session=True,
    )


def clean_environment() -> dict[str, str]:
    """All a program finds in its environment. A fixed hash seed: the same program, the same set order."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": WORK_DIR,
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
