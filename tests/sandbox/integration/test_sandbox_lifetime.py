"""What outlives what: cancellation, closing, the death of the parent, and 300 runs in a row."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, wait
from pathlib import Path

import pytest

from verl_lite.errors import SandboxError
from verl_lite.sandbox import Limits, Sandbox, Status

Alive = Callable[[Iterable[int]], set[int]]

SLEEP = "import time; time.sleep(60)"
SPREAD = "import os, time\nfor _ in range(3):\n  if os.fork() == 0: os.setsid()\ntime.sleep(60)"
PATIENT = Limits(wall_s=60)


def descendants(pid: int) -> set[int]:
    """Every process below `pid`, seen from outside."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        try:
            for children in Path(f"/proc/{current}/task").glob("*/children"):
                waiting += map(int, children.read_text().split())
        except OSError:
            continue
        if current != pid:
            found.add(current)
    return found


def await_that(condition: object, within_s: float = 60.0) -> bool:
    """Whether `condition()` becomes true in time."""
    assert callable(condition)
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_cancelling_a_run_in_progress_kills_it(sandbox: Sandbox) -> None:
    future = sandbox.submit_python(SPREAD, limits=PATIENT)
    assert await_that(future.running)
    time.sleep(0.2)
    assert not future.cancel()  # as for any future that runs; it is stopped all the same
    result = future.result(timeout=60)
    assert (result.status, result.message) == (Status.KILLED, "cancelled by the caller")
    assert sandbox.run_python("print(1)").stdout == b"1\n"


def test_cancelling_a_waiting_run_never_starts_it(tmp_path: Path) -> None:
    with Sandbox(workers=1, backend="native") as own:
        first = own.submit_python(SLEEP, limits=PATIENT)
        second = own.submit_python("print('never')")
        assert second.cancel()
        first.cancel()
        assert first.result(timeout=5).status is Status.KILLED
        with pytest.raises(CancelledError):
            second.result(timeout=5)


def test_an_async_task_that_is_cancelled_stops_its_run(sandbox: Sandbox) -> None:
    future = sandbox.submit_python(SLEEP, limits=PATIENT)

    async def give_up() -> None:
        await asyncio.wait_for(asyncio.wrap_future(future), timeout=0.3)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert future.result(timeout=5).status is Status.KILLED


def test_closing_kills_runs_in_progress(alive: Alive) -> None:
    own = Sandbox(workers=2, backend="native")
    before = descendants(os.getpid())
    futures = [own.submit_python(SPREAD, limits=PATIENT) for _ in range(4)]
    assert await_that(lambda: len(descendants(os.getpid()) - before) >= 2 * 8)
    below = descendants(os.getpid())
    own.close()
    done, _ = wait(futures, timeout=5)
    statuses = sorted("cancelled" if f.cancelled() else f.result().status.value for f in done)
    assert statuses == ["cancelled", "cancelled", "killed", "killed"]
    assert await_that(lambda: not alive(below - before))
    with pytest.raises(SandboxError, match="closed"):
        own.run_python("pass")


PARENT = """
import sys, threading, time
from verl_lite.sandbox import Limits, Sandbox
sandbox = Sandbox(workers=2, backend={backend!r})
for language, program in {programs!r}:
    limits = dict(limits=Limits(wall_s=60))
    threading.Thread(target=sandbox.run, args=(language, program), kwargs=limits).start()
print("ready", flush=True)
time.sleep(60)
""".replace("{{", "{").replace("}}", "}")


@pytest.mark.parametrize("backend", ["native", "bubblewrap"])
def test_nothing_survives_the_parents_sudden_death(alive: Alive, backend: str) -> None:
    if backend == "bubblewrap":
        try:
            Sandbox(workers=1, backend="bubblewrap").close()
        except SandboxError as error:
            pytest.skip(str(error))
        programs = [("bash", "sleep 60 & setsid sleep 60 & sleep 60")] * 2
        expected = 2 * 5  # bwrap, its first process, three sleeps
    else:
        programs = [("python", SPREAD), ("python", "while True: pass")]
        expected = 2 * 3 + 8 + 1  # supervisors, fork servers, first processes; 2**3; the loop
    script = PARENT.format(backend=backend, programs=programs)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        assert await_that(lambda: len(descendants(parent.pid)) >= expected), descendants(parent.pid)
        below = descendants(parent.pid)
        os.kill(parent.pid, signal.SIGKILL)
    assert await_that(lambda: not alive(below)), alive(below)


@pytest.mark.parametrize("victim", ["supervisor", "fork server"])
def test_a_killed_helper_is_a_fault_of_ours_and_is_replaced(alive: Alive, victim: str) -> None:
    before = descendants(os.getpid())
    with Sandbox(workers=1, backend="native") as own:
        future = own.submit_python(SPREAD, limits=PATIENT)
        assert await_that(future.running)
        time.sleep(0.3)
        below = descendants(os.getpid()) - before
        supervisor = min(pid for pid in below if parent_of(pid) == os.getpid() and descendants(pid))
        pid = supervisor if victim == "supervisor" else min(children_of(supervisor))
        os.kill(pid, signal.SIGKILL)
        assert future.result(timeout=10).status is Status.SANDBOX_ERROR
        assert await_that(lambda: not alive(below))
        assert own.run_python("print(1)").stdout == b"1\n"


@pytest.mark.parametrize("program", ["", SPREAD], ids=["idle", "in a run"])
def test_a_stopped_fork_server_dies_with_its_supervisor(alive: Alive, program: str) -> None:
    """It cannot see its link close: the kernel ends it, although its group has changed since its start."""
    others = descendants(os.getpid())
    with Sandbox(workers=1, backend="native") as own:
        assert own.run_python("pass").status is Status.OK
        below = descendants(os.getpid()) - others
        (supervisor,) = [pid for pid in below if parent_of(pid) == os.getpid() and descendants(pid)]
        (server,) = children_of(supervisor)
        future = own.submit_python(program, limits=PATIENT) if program else None
        assert await_that(lambda: len(descendants(server)) >= (1 + 8 if program else 0))
        below = {supervisor, *descendants(supervisor)}
        os.kill(server, signal.SIGSTOP)
        os.kill(supervisor, signal.SIGKILL)
        assert await_that(lambda: not alive(below), within_s=60.0), alive(below)
        if future is not None:
            assert future.result(timeout=60).status is Status.SANDBOX_ERROR
        assert own.run_python("print(1)").stdout == b"1\n"


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def children_of(pid: int) -> set[int]:
    return {child for child in descendants(pid) if parent_of(child) == pid}


def test_a_forked_child_gets_fork_servers_of_its_own(sandbox: Sandbox) -> None:
    sandbox.run_python("pass")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, sandbox.run_python("print('in the child')").stdout)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        assert file.read() == b"in the child\n"
    os.waitpid(child, 0)
    assert sandbox.run_python("print(2)").stdout == b"2\n"


def test_many_threads_share_a_sandbox(sandbox: Sandbox) -> None:
    answers: dict[int, bytes] = {}

    def work(number: int) -> None:
        for i in range(5):
            answers[number * 100 + i] = sandbox.run_python(f"print({number * 100 + i})").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}\n".encode() for number in answers}
    assert len(answers) == 40


HOSTILE = (
    "import os\nwhile True: os.fork()",
    "b = bytearray(1 << 40)",
    "while True: print('x' * 9999)",
    "import os\nif os.fork() == 0:\n  os.setsid()\n  while True: pass",
    "import os\nfor i in range(50): open(f'f{i}', 'w')\nos.kill(os.getpid(), 9)",
)


def traces() -> dict[str, object]:
    """What a leak would change."""
    return {
        "processes": descendants(os.getpid()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "threads": threading.active_count(),
    }


def test_300_mixed_runs_leak_nothing() -> None:
    with Sandbox(workers=2, backend="native") as own:

        def run_all(count: int) -> None:
            programs = [HOSTILE[i // 20 % 5] if i % 20 == 0 else f"print({i})" for i in range(count)]
            futures = [own.submit_python(program, limits=Limits(wall_s=10)) for program in programs]
            for i, future in enumerate(futures):
                result = future.result()
                assert result.status is not Status.SANDBOX_ERROR, result
                assert i % 20 == 0 or result.stdout == f"{i}\n".encode(), result

        run_all(40)
        before = traces()
        run_all(300)
        assert await_that(lambda: traces() == before), (before, traces())


@pytest.mark.slow
def test_a_run_that_cannot_be_ended_is_the_programs_failure(alive: Alive) -> None:
    """Its fork server is stopped, so it answers nothing: as a namespace that does not end would do."""
    others = descendants(os.getpid())
    with Sandbox(workers=1, backend="native") as own:
        assert own.run_python("pass").status is Status.OK
        helpers = descendants(os.getpid()) - others
        (server,) = [pid for pid in helpers if not descendants(pid)]
        future = own.submit_python(SLEEP, limits=Limits(wall_s=1.0))
        assert await_that(lambda: len(descendants(os.getpid()) - others) >= len(helpers) + 2)
        os.kill(server, signal.SIGSTOP)
        result = future.result(timeout=30)
        assert (result.status, result.exit_code) == (Status.TIMEOUT, -9), result
        assert own.run_python("print('next')").stdout == b"next\n"
        assert await_that(lambda: not alive(helpers), within_s=30.0)
