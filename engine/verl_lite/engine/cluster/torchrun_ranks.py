"""Learner ranks that torchrun started: rank 0 is the trainer, the other ranks execute its calls.

Rank 0 broadcasts (method, arguments), then runs the method itself. Between calls the other ranks wait for
as long as rank 0 samples. When it exits, they exit too, and torchrun stops the rest.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from verl_lite.engine.cluster.rank_worker import LearnerSpec, RankWorker
from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.errors import VerlLiteError

BETWEEN_CALLS = timedelta(days=30)


def join(config: ClusterConfig) -> None:
    """Join the process group; every process calls this first."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    timeout = timedelta(seconds=config.call_timeout_s)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timeout)


def follow() -> None:
    """The loop of every rank but 0: execute rank 0's calls until it sends "stop" or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 handles Ctrl-C and needs the other ranks to do so
    commands, worker = _commands(), None
    while True:
        try:
            method, arguments = _broadcast(None, commands)
        except RuntimeError:  # the connection is closed: rank 0 has exited and reported why
            raise SystemExit(1) from None
        if method == "stop":
            dist.destroy_process_group()
            return
        try:
            if method == "make":
                worker = RankWorker(arguments[0], _device())
            else:
                getattr(worker, method)(*arguments)
        except VerlLiteError:
            continue  # rank 0 raises the same error and reports it


class TorchrunRanks:
    """A Transport, created by rank 0."""

    def __init__(self, spec: LearnerSpec) -> None:
        self._commands = _commands()
        _broadcast(("make", (spec,)), self._commands)
        self._worker = RankWorker(spec, _device())

    def call(self, method: str, *args: Any) -> Any:
        _broadcast((method, args), self._commands)
        return getattr(self._worker, method)(*args)

    def start(self, method: str, *args: Any) -> Callable[[], Any]:
        """Runs the call immediately, as this process is one of the ranks."""
        result = self.call(method, *args)
        return lambda: result

    def put(self, method: str) -> Any:
        import ray

        return ray.put(self.call(method))

    def close(self) -> None:
        with suppress(RuntimeError):  # a rank may be gone
            _broadcast(("stop", ()), self._commands)
        dist.destroy_process_group()


def _commands() -> dist.ProcessGroup:
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=BETWEEN_CALLS)
    return group


def _broadcast(command: tuple[str, tuple[Any, ...]] | None, group: dist.ProcessGroup) -> Any:
    box = [command]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
