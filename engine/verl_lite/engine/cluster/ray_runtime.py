"""Ray for the duration of a run: a local Ray that the run starts and stops, or an existing cluster.

Only this file starts or joins Ray. Processes of a local Ray never outlive the run: `ray.shutdown` stops
them on the way out, the watchdog after a SIGKILL. On an existing cluster, Ray itself kills a job's actors
once its driver is gone.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Any

from verl_lite.engine.cluster.watchdog import Watchdog, descendants, kill_after_grace
from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.errors import ConfigError

# Actors that request no GPU still see all GPUs of their node.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's workers run at niceness 15 by default: with anything else running, engines starved.
os.environ.setdefault("RAY_worker_niceness", "0")
# Ray reports dead processes on stdout; the run reports losses itself, and its stdout may be JSON.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker died or was killed|has been marked dead")

CONNECT_TIMEOUT_S = 10.0
SLOW = "timed out during startup"
TERMINATED = 128 + signal.SIGTERM


class RayRuntime:
    """A context manager inside which `ray` is initialised. Raises ConfigError if that fails.

    `cpus` is the total that the run's actors request. A local Ray offers at least that many, even on fewer
    cores, so that actors share them. A Ray that the process has already initialised is used and left
    running.
    """

    def __init__(self, config: ClusterConfig, *, cpus: float) -> None:
        self._config = config
        self._cpus = cpus
        self._watchdog: Watchdog | None = None
        self._was_initialized = False
        self.ray: Any = None
        self.on_gpu = False  # fixed at the start: a run does not continue without its GPUs

    def __enter__(self) -> "RayRuntime":
        try:
            import ray
        except ImportError:
            raise ConfigError(
                "this config places parts of the run with Ray, which is not installed: "
                "pip install 'verl-lite[ray]'"
            ) from None
        self.ray = ray
        self._was_initialized = ray.is_initialized()
        if not self._was_initialized:
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
        deadline = time.monotonic() + self._config.start_timeout_s
        while (error := _try_init(ray, options)) is not None:
            # Ray gives a node 30 s, which is not always enough on a busy machine
            if address is None and SLOW in str(error) and time.monotonic() < deadline:
                continue
            limit = f"cluster.start_timeout_s={self._config.start_timeout_s:g}"
            what = f"a local Ray, within {limit}" if address is None else f"cluster.address={address}"
            raise ConfigError(f"{what}: {str(error).strip().splitlines()[0]}{_hint(address)}")
        if threading.current_thread() is threading.main_thread():
            # Ray's handler prints a stack: put the run's handler (interrupt.py) back, or exit plainly
            is_default = on_sigterm in (signal.SIG_DFL, None)
            signal.signal(signal.SIGTERM, _exit if is_default else on_sigterm)

    def __exit__(self, *_: object) -> None:
        if self._was_initialized:
            return
        try:
            self.ray.shutdown()
        finally:
            self._close_watchdog()

    def _close_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None


def _try_init(ray: Any, options: dict[str, Any]) -> Exception | None:
    """Call `ray.init`. Returns its error, after killing every process it started; None on success."""
    before = descendants(os.getpid())
    try:
        ray.init(**options)
        return None
    except Exception as error:  # noqa: BLE001 - Ray raises plain Exceptions if a node does not start
        started = descendants(os.getpid()) - before
        ray.shutdown()
        _kill_node_of(error)
        kill_after_grace(started)
        return error


def _hint(address: str | None) -> str:
    """Advice on tokens: Ray sends its token to a cluster it finds ("auto"), but not to a named address."""
    if address in (None, "auto") or "RAY_AUTH_MODE" in os.environ:
        return ""
    return (
        "; if the cluster asks for Ray's token (its head had a ~/.ray/auth_token when it started), set "
        "RAY_AUTH_MODE=token and copy that file here"
    )


def _check_that_it_listens(address: str) -> None:
    """Fail early: Ray itself would retry for five minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or a form that Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ConfigError(f"cluster.address={address}: no Ray cluster answers there ({error})") from None


def _kill_node_of(error: BaseException) -> None:
    """Kill the processes of a node that did not start: only the error's frames still hold it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node: Any = frame.f_locals.get("self")
        if hasattr(node, "kill_all_processes"):
            node.kill_all_processes(check_alive=False, allow_graceful=True, wait=True)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(TERMINATED)
