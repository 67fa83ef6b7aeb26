"""Ray for the length of a run: one of its own that goes with it, or a cluster that was there before.

This is the only file that starts or joins Ray. What a Ray of the run's own started is gone after it,
however the run ends: on the way out by `ray.shutdown`, after a SIGKILL by the watchdog. On a cluster
that exists, Ray itself ends a job's actors when its driver is gone.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from types import FrameType, TracebackType
from typing import Any

from verl_lite.engine.cluster.watchdog import Watchdog, descendants, end
from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.errors import ConfigError

__all__ = ["RayRuntime"]

# Ray asks for a choice about devices of actors without any; ours keep what their process sees.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's workers run at niceness 15 by default: beside anything else on the machine, engines starved.
os.environ.setdefault("RAY_worker_niceness", "0")
# Ray says on stdout when a process died; the run says itself what was lost, and its stdout may be JSON.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker died or was killed|has been marked dead")

CONNECT_S = 10.0
SLOW = "timed out during startup"
TERMINATED = 128 + signal.SIGTERM


class RayRuntime:
    """Use as a context manager; inside it `ray` is initialised. Raises ConfigError where that fails.

    `cpus` is what the run's actors ask for together. A Ray of the run's own offers at least that
    many, however few cores there are: placement is not what a laptop lacks. A cluster that exists
    already offers what it has. A process that initialised Ray itself keeps its Ray afterwards.
    """

    def __init__(self, config: ClusterConfig, *, cpus: float) -> None:
        self._config = config
        self._cpus = cpus
        self._watchdog: Watchdog | None = None
        self._was_there = False
        self.ray: Any = None
        self.on_gpu = False  # as the cluster was at the start: a run does not go on without GPUs it had

    def __enter__(self) -> "RayRuntime":
        try:
            import ray
        except ImportError:
            raise ConfigError(
                "this config places parts of the run with Ray, which is not installed: "
                "pip install 'verl-lite[ray]'"
            ) from None
        self.ray = ray
        self._was_there = ray.is_initialized()
        if not self._was_there:
            if self._config.address is None:
                self._watchdog = Watchdog()
            try:
                self._start(ray)
            except BaseException:
                self._close_watchdog()
                raise
        self.on_gpu = ray.cluster_resources().get("GPU", 0) > 0
        return self

    def _start(self, ray: Any) -> None:
        address = self._config.address
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address is None:
            options |= {
                "address": "local",
                "num_cpus": max(os.cpu_count() or 1, int(self._cpus + 1)),
                "include_dashboard": False,
            }
        else:
            _check_that_it_listens(address)
            options |= {"address": address}
        on_sigterm = signal.getsignal(signal.SIGTERM)
        until = time.monotonic() + self._config.start_timeout_s
        while True:
            before = descendants(os.getpid())
            try:
                ray.init(**options)
                break
            except Exception as error:  # noqa: BLE001 - Ray raises plain Exceptions where a node does not start
                begun = descendants(os.getpid()) - before
                ray.shutdown()
                _end_node_of(error)
                end(begun)
                # Ray itself gives a node 30 s, which on a busy machine is not always enough
                if address is None and SLOW in str(error) and time.monotonic() < until:
                    continue
                if address is None:
                    limit = f"cluster.start_timeout_s={self._config.start_timeout_s:g}"
                    place = f"a Ray of the run's own, within {limit}"
                else:
                    place = f"cluster.address={address}"
                raise ConfigError(f"{place}: {str(error).strip().splitlines()[0]}{_hint(address)}") from None
        if threading.current_thread() is threading.main_thread():
            # Ray's own handler prints a stack; the run's (interrupt.py) or a plain exit is put back.
            is_default = on_sigterm in (signal.SIG_DFL, None)
            signal.signal(signal.SIGTERM, _exit if is_default else on_sigterm)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._was_there:
            return
        try:
            self.ray.shutdown()
        finally:
            self._close_watchdog()

    def _close_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None


def _hint(address: str | None) -> str:
    """Ray sends its token to a cluster it found by itself ("auto"), to a named address only when told to."""
    if address in (None, "auto") or "RAY_AUTH_MODE" in os.environ:
        return ""
    return (
        "; if the cluster asks for Ray's token, as one does whose head had a ~/.ray/auth_token when it "
        "started, set RAY_AUTH_MODE=token and have that file here too"
    )


def _check_that_it_listens(address: str) -> None:
    """Ray itself tries for five minutes and prints meanwhile."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or a form that Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ConfigError(f"cluster.address={address}: no Ray cluster answers there ({error})") from None


def _end_node_of(error: BaseException) -> None:
    """End the processes of a node that did not start: Ray forgets it, only the error's frames know it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node: Any = frame.f_locals.get("self")
        if hasattr(node, "kill_all_processes"):
            node.kill_all_processes(check_alive=False, allow_graceful=True, wait=True)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(TERMINATED)
