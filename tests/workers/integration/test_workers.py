"""The pool of killable workers: deadlines, blame, replacement, and who outlives whom."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from verl_lite.workers import WorkerPool

JOBS = """
import os, signal, time
from verl_lite.workers import receive_frame, send_frame

def prepare(argument):
    if argument == "broken":
        raise ImportError("no such library")
    if argument == "dead":
        os._exit(3)
    return serve

def serve(channel, slot):
    while True:
        job = receive_frame(channel)
        if job == b"hang":
            time.sleep(600)
        elif job == b"die":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif job == b"exit":
            os._exit(7)
        elif job == b"garbage":
            channel.sendall(b"\\xff" * 64)
        elif job.startswith(b"sleep"):
            time.sleep(float(job[5:]))
        send_frame(channel, b"%d %d" % (os.getpid(), len(job)))
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs_of_workers.py").write_text(JOBS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def pool(jobs: None) -> Iterator[WorkerPool]:
    made = WorkerPool("jobs_of_workers:prepare", "", size=2, jobs_per_worker=100)
    made.wait_ready(60, 2)
    yield made
    made.close()


def wait_until(is_met: Callable[[], bool], within_s: float = 60) -> None:
    deadline_s = time.monotonic() + within_s
    while not is_met():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def kill(pid: int | None) -> None:
    """Kill a process and wait until it is gone."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pid_of(pool: WorkerPool, job: bytes = b"") -> int:
    """The process that did the job."""
    answer = pool.ask(job, time.monotonic() + 20)
    assert answer.status == "ok", answer
    pid, length = map(int, answer.body.split())
    assert length == len(job)
    return pid


def test_a_job_past_its_deadline_costs_its_worker_and_nothing_more(pool: WorkerPool) -> None:
    before = {worker.pid for worker in pool.workers.values()}
    started = time.monotonic()
    answer = pool.ask(b"hang", started + 0.2)
    assert answer.status == "timeout"
    assert 0.2 <= time.monotonic() - started < 100
    pool.wait_ready(60, 2)
    after = {worker.pid for worker in pool.workers.values()}
    assert len(before & after) == 1
    assert len(after) == 2
    assert pid_of(pool) in after


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (b"die", "lost its worker process to SIGSEGV"),
        (b"exit", "ended its worker process with exit code 7"),
        (b"garbage", "sent a damaged reply"),
    ],
)
def test_a_worker_that_ends_with_a_job_is_said_to_and_replaced(
    pool: WorkerPool, job: bytes, why: str
) -> None:
    answer = pool.ask(job, time.monotonic() + 20)
    assert (answer.status, answer.why) == ("died", why)
    assert pid_of(pool) > 0


def test_a_large_job_is_sent_whole(pool: WorkerPool) -> None:
    assert pid_of(pool, b"x" * 5_000_000) > 0


def test_more_callers_than_workers_take_turns_and_give_up_at_their_deadline(pool: WorkerPool) -> None:
    with ThreadPoolExecutor(4) as threads:
        pids = set(threads.map(lambda _: pid_of(pool, b"sleep0.01"), range(40)))
        assert pids == {worker.pid for worker in pool.workers.values()}
        busy = [threads.submit(pid_of, pool, b"sleep1") for _ in range(2)]
        wait_until(lambda: not pool._idle)
        late = pool.ask(b"", time.monotonic() + 0.1)
        assert (late.status, late.why[:23]) == ("timeout", "every worker was busy o")
        assert {future.result() for future in busy} == pids


@pytest.mark.usefixtures("jobs")
def test_a_worker_is_replaced_after_its_jobs_and_after_an_unclean_reply() -> None:
    pool = WorkerPool(
        "jobs_of_workers:prepare",
        "",
        size=1,
        jobs_per_worker=3,
        is_clean=lambda body: not body.endswith(b" 1"),
    )
    pids = [pid_of(pool) for _ in range(6)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3]
    assert pid_of(pool, b"x") != pid_of(pool)
    pool.close()


@pytest.mark.parametrize(
    ("argument", "why"), [("broken", "ImportError: no such library"), ("dead", "ended with exit code 3")]
)
@pytest.mark.usefixtures("jobs")
def test_what_cannot_be_imported_is_an_error_with_its_reason(argument: str, why: str) -> None:
    pool = WorkerPool("jobs_of_workers:prepare", argument, size=1, jobs_per_worker=3)
    answer = pool.ask(b"", time.monotonic() + 60)
    assert answer.status == "error"
    assert why in answer.why
    pool.close()


def test_idle_workers_and_a_fork_server_that_are_killed_cost_no_job(pool: WorkerPool) -> None:
    for _ in range(2):
        for worker in list(pool.workers.values()):
            kill(worker.pid)
        assert pid_of(pool) > 0
        pool.wait_ready(10, 2)
    assert pool.server is not None
    kill(pool.server.pid)
    assert pid_of(pool) > 0


def test_a_fork_server_killed_under_a_job_is_not_the_fault_of_the_job(pool: WorkerPool) -> None:
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(pid_of, pool, b"sleep0.5")
        wait_until(lambda: len(pool._idle) == 1)
        assert pool.server is not None
        kill(pool.server.pid)
        assert future.result() > 0


@pytest.mark.usefixtures("jobs")
def test_the_fork_server_outlives_the_thread_that_started_it() -> None:
    pool = WorkerPool("jobs_of_workers:prepare", "", size=1, jobs_per_worker=100)
    pids: list[int] = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: pids.append(pid_of(pool)))
        thread.start()
        thread.join()
    assert len(pids) == 3
    assert len(set(pids)) == 1
    assert pool.server is not None
    server = pool.server.pid
    worker = pid_of(pool)
    assert pool.server.pid == server
    pool.close()
    assert not Path(f"/proc/{server}").exists()
    assert not Path(f"/proc/{worker}").exists()
