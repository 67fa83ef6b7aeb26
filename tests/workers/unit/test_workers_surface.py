"""The public surface of verl_lite.workers: what the math verifier and reward execution build on."""

import inspect

import verl_lite.workers
from verl_lite.errors import VerlLiteError
from verl_lite.workers import ForkServerHandle, WorkerPool, WorkerStartError


def test_the_public_names() -> None:
    names = [
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
    assert verl_lite.workers.__all__ == names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert all(getattr(verl_lite.workers, name) is not None for name in names)
    assert issubclass(WorkerStartError, VerlLiteError)


def test_the_signatures() -> None:
    assert str(inspect.signature(ForkServerHandle)) == (
        "(entry: str, argument: object, *, workers: int, dies_with_thread: bool = False) -> None"
    )
    assert list(inspect.signature(WorkerPool).parameters) == [
        "entry",
        "argument",
        "size",
        "jobs_per_worker",
        "is_clean",
    ]
    assert list(inspect.signature(WorkerPool.ask).parameters) == ["self", "job", "deadline_s"]
    assert list(inspect.signature(WorkerPool.wait_ready).parameters) == ["self", "timeout_s", "count"]
