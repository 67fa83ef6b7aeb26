"""The trainer's handle to one supervisor process: start it, run a program, kill it."""

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from dataclasses import astuple
from pathlib import Path
from typing import Any

from verl_lite.errors import SandboxError
from verl_lite.sandbox._cgroup import CGROUP_VARIABLE, remove_groups
from verl_lite.sandbox._program_files import pack_program
from verl_lite.sandbox._rootfs import WORK_DIR, base_python
from verl_lite.sandbox._wire import CHANNEL_FOLLOWS, receive_frame, send_frame
from verl_lite.sandbox.backend import Request
from verl_lite.sandbox.limits import Limits, Result, Status

# Imports the package by its path, without its __init__ and without site: what the fork server does not
# load, no fork copies. LD_BIND_NOW resolves C symbols at start, so that no run has to.
_BOOT = """
import os, sys, types
del os.environ["LD_BIND_NOW"]
package, namespace, link, parent, options = sys.argv[1:]
for name, path in (("verl_lite", namespace), ("verl_lite.sandbox", package)):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
sys.argv[:] = ["sandbox"]
from verl_lite.sandbox._supervisor import main
main(int(link), int(parent), options)
"""
_START_TIMEOUT_S = 30.0
_ENDS_ITSELF_S = 10.0
_ANSWER_SLACK_S = 30.0  # beyond the wall limit: set-up and kill, both bounded by the supervisor


class Worker:
    """One supervisor with its fork server. Used by one thread at a time; `cancel` and `kill` by any."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._send_lock = threading.Lock()
        self._groups: list[str] = []
        self._namespaces = bool(options["namespaces"])
        self._link, far = socket.socketpair()
        with far:
            self._process = _spawn(far.fileno(), options)
        self._link.settimeout(_START_TIMEOUT_S)
        try:
            kind, answer = receive_frame(self._link)
        except (OSError, EOFError) as error:
            self.kill()
            raise SandboxError(f"the sandbox's process did not start: {error}") from error
        if kind == "fault":
            self.kill()
            raise SandboxError(f"cannot isolate programs here: {answer}; see `verl-lite doctor`")
        self._groups = answer

    @property
    def closed(self) -> bool:
        """Whether it was killed, as after every sandbox fault."""
        return self._link.fileno() < 0

    @property
    def alive(self) -> bool:
        return not self.closed and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, request: Request, run_id: int) -> Result:
        """Run one program. A sandbox fault is a `sandbox_error` result, and kills this worker."""
        program = pack_program(request.source, request.args, request.files)
        channel = request.channel
        self._link.settimeout(request.limits.wall_s + _ANSWER_SLACK_S)
        try:
            with self._send_lock:
                stdin = request.stdin if channel is None else None
                send_frame(self._link, run_id, _values(request.limits), program, stdin)
                if channel is not None:
                    socket.send_fds(self._link, [CHANNEL_FOLLOWS], [channel.fileno()])
                    channel.close()
            kind, *answer = receive_frame(self._link)
        except (OSError, EOFError, ValueError) as error:
            self.kill()
            return Result(status=Status.SANDBOX_ERROR, message=f"the sandbox's process failed: {error!r}")
        except BaseException:  # the caller was interrupted: nothing of the run may continue
            self.kill()
            raise
        if kind == "fault":
            self.kill()
            return Result(status=Status.SANDBOX_ERROR, message=answer[0])
        if kind == "last result":  # the run could not be ended without its fork server
            self.kill()
        return _result(*answer)

    def cancel(self, run_id: int) -> None:
        with self._send_lock, contextlib.suppress(OSError):
            send_frame(self._link, run_id)

    def disown(self) -> None:
        """In a forked child: release what belongs to the parent, without stopping it."""
        self._link.close()
        self._process.returncode = 0  # not ours to reap

    def kill(self) -> None:
        """Kill the processes at once, with every program in them."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)  # wakes a thread blocked in `run`
        if not self._namespaces:  # only the supervisor finds every process of its run
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDS_ITSELF_S)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._namespaces:
            remove_groups(self._groups)  # the supervisor was killed before it could
        else:
            for folder in self._groups:
                shutil.rmtree(folder, ignore_errors=True)
        self._link.close()


@functools.lru_cache(maxsize=64)
def _values(limits: Limits) -> tuple[Any, ...]:
    return astuple(limits)


def _result(ending: dict[str, Any], outputs: list[bytes]) -> Result:
    stdout, stderr, reply = outputs
    status = Status(ending.pop("status"))
    return Result(status=status, stdout=stdout, stderr=stderr, reply=reply, **ending)


def _spawn(link_fd: int, options: dict[str, Any]) -> subprocess.Popen[bytes]:
    package = Path(__file__).parent
    given = json.dumps({**options, "groups": os.environ.get(CGROUP_VARIABLE, "")})
    arguments = [str(package), str(package.parent), str(link_fd), str(os.getpid()), given]
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
    """The whole environment of a program. A fixed hash seed makes set order reproducible; converting large
    ints to text takes CPU time, which has its own limit.
    """
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": WORK_DIR,
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONINTMAXSTRDIGITS": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MB of address space
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
