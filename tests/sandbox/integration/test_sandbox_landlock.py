"""The backend without namespaces: what it holds besides the attacks, and what ends with what."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

import pytest

from verl_lite.errors import SandboxError
from verl_lite.sandbox import Limits, Sandbox, Status, sandbox as sandbox_module
from verl_lite.sandbox._shared_host import tasks_below

Alive = Callable[[Iterable[int]], set[int]]

SPREAD = "import os, time\nfor _ in range(3):\n  if os.fork() == 0: os.setsid()\ntime.sleep(60)"
PARENT = f"""
import sys, threading, time
sys._base_executable, sys.base_prefix = {{executable!r}}, {{prefix!r}}
from verl_lite.sandbox import Limits, Sandbox
sandbox = Sandbox(workers=1, backend="landlock")
run = dict(args=({SPREAD!r},), kwargs=dict(limits=Limits(wall_s=60)))
threading.Thread(target=sandbox.run_python, **run).start()
print("ready", flush=True)
time.sleep(60)
"""


def await_that(condition: Callable[[], object], within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def folders() -> set[str]:
    return {name for name in os.listdir("/tmp") if name.startswith("verl-lite-run-")}


def test_honest_programs(landlock: Sandbox) -> None:
    assert landlock.backend == "landlock"
    program = (
        "import os, sys, tempfile, threading, asyncio\nprint(input(), sys.argv[1:], open('f').read())\n"
        "t = threading.Thread(target=lambda: print('thread')); t.start(); t.join()\n"
        "with tempfile.TemporaryFile() as file: file.write(b'x')\n"
        "asyncio.run(asyncio.sleep(0)); os.makedirs('a/b'); os.write(3, b'reply')\n"
        "if os.fork() == 0: os._exit(3)\nprint(os.waitstatus_to_exitcode(os.wait()[1]), os.listdir())"
    )
    result = landlock.run_python(program, stdin="in", files={"f": b"file"}, args=["x"])
    assert result.stdout.splitlines()[:3] == [b"in ['x'] file", b"thread", b"3 ['main.py', 'f', 'a']"], result
    assert (result.status, result.reply) == (Status.OK, b"reply")
    assert landlock.run_python("import os; print(os.listdir())").stdout == b"['main.py']\n"


@pytest.mark.parametrize(
    ("program", "status"),
    [
        (
            "import os\nfor i in range(6000): os.mkdir('d'); os.chdir('d')\n__import__('time').sleep(9)",
            Status.MEMORY,
        ),
        ("import os\nos.mkdir('d', 0); os.mkdir('e', 0o300)\nopen('e/f', 'w').write('x')", Status.OK),
        (
            "import os\nos.mkdir('d')\nos.symlink('/etc', 'd/l'); os.symlink('/', 'e')",
            Status.OK,
        ),
        (
            "import os, tempfile, time\nkept = [tempfile.TemporaryFile() for _ in range(9)]\n"
            "for f in kept: f.write(bytes(12 << 20)); f.flush()\ntime.sleep(9)",
            Status.MEMORY,
        ),
    ],
)
def test_what_a_program_leaves_is_counted_and_cleared(
    program: str, status: Status, landlock: Sandbox
) -> None:
    result = landlock.run_python(program, limits=Limits(memory_mb=128, wall_s=20))
    assert result.status is status, result
    assert landlock.run_python("import os; print(os.listdir(), os.listdir('..'))").stdout == (
        b"['main.py'] ['work', '.shm']\n"
    )


def test_processes_are_counted_without_a_user_of_their_own(landlock: Sandbox) -> None:
    program = (
        "import os, time, threading\nn = 0\ntry:\n  while n < 99:\n    if os.fork() == 0: time.sleep(9)\n"
        "    n += 1\nexcept BlockingIOError: print(n, flush=True)\n"
        "try: threading.Thread(target=print).start()\n"
        "except RuntimeError: print('no thread', flush=True)\nos._exit(0)"
    )
    for processes in (1, 4, 16):
        result = landlock.run_python(program, limits=Limits(processes=processes))
        assert result.stdout == b"%d\nno thread\n" % (processes - 1), result


def test_the_time_limits_hold(landlock: Sandbox) -> None:
    assert landlock.run_python(SPREAD, limits=Limits(wall_s=0.3)).status is Status.TIMEOUT
    busy = landlock.run_python("import os\nos.fork()\nwhile True: pass", limits=Limits(wall_s=200, cpu_s=0.4))
    assert (busy.status, busy.wall_s < 100) == (Status.TIMEOUT, True)
    future = landlock.submit_python(SPREAD, limits=Limits(wall_s=60))
    assert await_that(future.running)
    future.cancel()
    assert future.result(timeout=10).status is Status.KILLED
    assert landlock.run_python("print(1)").stdout == b"1\n"


def test_it_is_used_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise SandboxError("unshare: Operation not permitted")

    monkeypatch.setattr(sandbox_module, "NativeBackend", cannot)
    monkeypatch.setattr(sandbox_module, "BubblewrapBackend", cannot)
    with pytest.raises(SandboxError, match="backend: landlock needs no namespaces, and isolates less"):
        Sandbox()
    with pytest.raises(SandboxError, match="network_per_run needs network namespaces"):
        Sandbox(backend="landlock", network_per_run=True)


@pytest.mark.parametrize("victim", ["supervisor", "fork server"])
def test_a_killed_helper_takes_its_run_along(alive: Alive, victim: str, public_python: None) -> None:
    before, left = tasks_below(os.getpid()), folders()
    with Sandbox(workers=1, backend="landlock") as own:
        (supervisor,) = [pid for pid in tasks_below(os.getpid()) - before if tasks_below(pid)]
        (server,) = tasks_below(supervisor)
        future = own.submit_python(SPREAD, limits=Limits(wall_s=60))
        assert await_that(lambda: len(tasks_below(server)) >= 8)
        below = tasks_below(supervisor) | {supervisor}
        os.kill(supervisor if victim == "supervisor" else server, signal.SIGKILL)
        assert future.result(timeout=20).status is Status.SANDBOX_ERROR
        assert await_that(lambda: not alive(below)), alive(below)
        assert own.run_python("print(1)").stdout == b"1\n"
    assert await_that(lambda: folders() <= left), folders() - left


def test_nothing_survives_the_parents_sudden_death(alive: Alive, public_python: None) -> None:
    left = folders()
    script = PARENT.format(executable=sys._base_executable, prefix=sys.base_prefix)  # type: ignore[attr-defined]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        assert await_that(lambda: len(tasks_below(parent.pid)) >= 2 + 8)
        below = tasks_below(parent.pid)
        os.kill(parent.pid, signal.SIGKILL)
    assert await_that(lambda: not alive(below)), alive(below)
    assert await_that(lambda: folders() <= left), folders() - left
