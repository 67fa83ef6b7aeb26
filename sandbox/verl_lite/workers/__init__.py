"""Persistent worker processes, forked from a warm fork server and killed at a deadline.

A leaf: it knows nothing of rewards, verdicts or plugins. A client names a function that prepares
(imports, builds) and returns the function that every worker runs on its channel. `WorkerPool` is for
callers that wait for one job each, `ForkServerHandle` and `WorkerHandle` for those that watch many.
Workers run with the rights of the caller: untrusted programs belong in the sandbox.
"""

from verl_lite.workers.channel import receive_frame, send_frame
from verl_lite.workers.fork_server_handle import ForkServerHandle, WorkerStartError
from verl_lite.workers.pool import Answer, Lease, WorkerPool
from verl_lite.workers.progress import Progress, ProgressPage, Serve, Slot
from verl_lite.workers.spawned import SpawnedPool, SpawnedWorker, pool_kind
from verl_lite.workers.system import can_fork_workers, child_pids, num_cores
from verl_lite.workers.worker_handle import CHANNEL_CLOSED, WorkerHandle, how_it_ended, resident_mb

__all__ = [
    "CHANNEL_CLOSED",
    "Answer",
    "ForkServerHandle",
    "Lease",
    "Progress",
    "ProgressPage",
    "Serve",
    "Slot",
    "SpawnedPool",
    "SpawnedWorker",
    "WorkerHandle",
    "WorkerPool",
    "WorkerStartError",
    "can_fork_workers",
    "child_pids",
    "how_it_ended",
    "num_cores",
    "pool_kind",
    "receive_frame",
    "resident_mb",
    "send_frame",
]
