"""Learner ranks that torchrun started: the first is the trainer, the others do as it says.

The trainer sends (method, arguments) to all before it runs the method itself. Between calls the others
wait, however long the trainer samples; when it ends, so do they, and torchrun ends what is left.
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

__all__ = ["TorchrunRanks", "follow", "join"]

BETWEEN_CALLS = timedelta(days=30)


def join(config: ClusterConfig) -> None:
    """Meet the other processes; every one calls it, before anything else of the run."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    timeout = timedelta(seconds=config.call_timeout_s)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timeout)


def follow() -> None:
    """What the ranks after the first do: run what the first one says, until it says stop or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is rank 0's to act on, which needs the others
    commands, worker = _commands(), None
    while True:
        try:
            method, arguments = _broadcast(None, commands)
        except RuntimeError:  # the connection is closed: rank 0 has ended, and says why
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
            continue  # rank 0 has the same error, and is the one to tell


class TorchrunRanks:
    """A Transport, made by rank 0."""

    def __init__(self, spec: LearnerSpec) -> None:
        self._commands = _commands()
        _broadcast(("make", (spec,)), self._commands)
        self._worker = RankWorker(spec, _device())

    def call(self, method: str, *args: Any) -> Any:
        _broadcast((method, args), self._commands)
        return getattr(self._worker, method)(*args)

    def start(self, method: str, *args: Any) -> Callable[[], Any]:
        """As `call`, at once: this process is one of the ranks."""
        result = self.call(method, *args)
        return lambda: result

    def put(self, method: str) -> Any:
        import ray

        return ray.put(self.call(method))

    def close(self) -> None:
        with suppress(RuntimeError):  # a rank that is gone cannot be told
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
