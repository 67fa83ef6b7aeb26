"""The caller's side of the math workers: one pool per process, safe under fork and threads.

`ask` may be called from any thread, from a forked child (which starts its own workers) or inside
Ray. It returns by the deadline, whatever the worker does. The calling process never imports sympy.
"""

import atexit
import json
import os
import pickle
import threading
import time
from dataclasses import dataclass
from typing import Any

from verl_lite.verifiers.math.expressions import Expr
from verl_lite.workers import SpawnedPool, WorkerPool, num_cores, pool_kind

WORKER_MEMORY_MB = 1024
JOBS_PER_WORKER = 300  # sympy's caches grow; a fresh fork is cheap


@dataclass(frozen=True, slots=True)
class Reply:
    """`status`: ok | refused | timeout | memory | error; `answer` is what the question returned."""

    status: str
    why: str = ""
    answer: Any = None


def num_workers() -> int:
    """How many questions run at once: one per usable core, at most four."""
    return min(4, num_cores())


_pool: WorkerPool | SpawnedPool | None = None
_pool_lock = threading.Lock()


def _current() -> WorkerPool | SpawnedPool:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = pool_kind()(
                "verl_lite.verifiers.math.worker:prepare",
                WORKER_MEMORY_MB,
                size=num_workers(),
                jobs_per_worker=JOBS_PER_WORKER,
                is_clean=lambda reply: reply.startswith(b'{"status": "ok"'),
            )
        return _pool


def start() -> None:
    """Start the workers in the background, so that the first hard question does not wait for them."""
    _current().start()


def wait_until_ready(timeout_s: float, count: int = 1) -> None:
    """Start `count` workers and wait until they take questions, at most `timeout_s`."""
    _current().wait_ready(timeout_s, count)


def ask(question: str, *arguments: Expr | str, timeout_s: float) -> Reply:
    """Put a question of `symbolic.QUESTIONS` to a worker; always returns within timeout_s + 0.5 s."""
    deadline_s = time.monotonic() + timeout_s
    answer = _current().ask(pickle.dumps((question, arguments)), deadline_s)
    if answer.status == "ok":
        reply = json.loads(answer.body)
        return Reply(reply["status"], reply["why"], reply.get("answer"))
    if answer.status == "died":
        return Reply("memory", f"the question {answer.why}, most likely for lack of memory")
    return Reply(answer.status, answer.why)


def close() -> None:
    """Stop the worker processes; the next question starts new ones."""
    global _pool
    with _pool_lock:
        pool, _pool = _pool, None
    if pool is not None:
        pool.close()


def _forget_in_child() -> None:
    """A forked child must not talk through its parent's sockets, nor wait on a lock nobody holds."""
    global _pool, _pool_lock
    _pool_lock = threading.Lock()
    if _pool is not None:
        _pool.forget()
    _pool = None


atexit.register(close)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_in_child)
