"""Every limit, every status, and what a result says: each against a program that shows it."""

import dataclasses
import time

import pytest

from verl_lite.sandbox import Limits, Sandbox, Status

TOUCH = "block = bytearray({mb} << 20)\nfor i in range(0, len(block), 4096): block[i] = 1\n"


@pytest.mark.parametrize(
    ("program", "status", "exit_code"),
    [
        ("pass", "ok", 0),
        ("import sys; sys.exit(0)", "ok", 0),
        ("import sys; sys.exit(3)", "error", 3),
        ("import sys; sys.exit('text')", "error", 1),
        ("import sys; sys.exit(-1)", "error", 255),
        ("raise ValueError", "error", 1),
        ("raise KeyboardInterrupt", "error", 1),
        ("def (", "error", 1),
        ("x = '\ud800'", "error", 1),
        ("import os; os._exit(7)", "error", 7),
        ("import os; os.abort()", "killed", -6),
        ("import os; os.kill(os.getpid(), 15)", "killed", -15),
        ("import os; os.kill(os.getpid(), 9)", "killed", -9),
        ("import ctypes; ctypes.string_at(0)", "killed", -11),
        ("raise MemoryError", "memory", 1),
        ("bytearray(1 << 40)", "memory", 1),
        ("while True: print('x' * 9999)", "output_limit", -9),
        ("while True: pass", "timeout", -9),
        ("import time; time.sleep(60)", "timeout", -9),
    ],
)
def test_status_and_exit_code(program: str, status: str, exit_code: int, sandbox: Sandbox) -> None:
    limits = Limits(wall_s=0.7 if status == "timeout" else 15)
    result = sandbox.run_python(program, limits=limits)
    assert (result.status, result.exit_code) == (status, exit_code), result
    assert (result.message == "") == (status == "ok")


def test_wall_time_is_the_programs_own(sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = sandbox.run_python("import time; time.sleep(0.5)")
    assert result.status is Status.OK
    assert 0.5 <= result.wall_s <= time.monotonic() - started
    assert result.cpu_s < 0.4


def test_wall_limit_stops_on_time(sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = sandbox.run_python("import time; time.sleep(60)", limits=Limits(wall_s=0.5))
    assert result.status is Status.TIMEOUT
    assert "wall_s=0.5" in result.message
    assert 0.5 <= time.monotonic() - started < 50


def test_cpu_limit_counts_all_processes(sandbox: Sandbox) -> None:
    program = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
    result = sandbox.run_python(program, limits=Limits(wall_s=200, cpu_s=0.5))
    assert result.status is Status.TIMEOUT
    assert "cpu_s=0.5" in result.message
    assert result.wall_s < 100


def test_cpu_limit_does_not_count_sleep(sandbox: Sandbox) -> None:
    result = sandbox.run_python("import time; time.sleep(0.8)", limits=Limits(wall_s=60, cpu_s=0.3))
    assert result.status is Status.OK


def test_cpu_limit_alone_ends_a_loop(sandbox: Sandbox) -> None:
    result = sandbox.run_python("while True: pass", limits=Limits(wall_s=200, cpu_s=1.0))
    assert result.status is Status.TIMEOUT
    assert 0.9 <= result.cpu_s < 2.5


def test_memory_within_and_over_the_limit(sandbox: Sandbox) -> None:
    limits = Limits(memory_mb=128)
    within = sandbox.run_python(TOUCH.format(mb=80), limits=limits)
    over = sandbox.run_python(TOUCH.format(mb=160), limits=limits)
    assert (within.status, over.status) == (Status.OK, Status.MEMORY)
    assert 85 < within.peak_memory_mb < 110
    assert "memory_mb=128" in over.message


def test_memory_counts_all_processes(sandbox: Sandbox) -> None:
    program = f"import os, time\nfor _ in range(2): os.fork()\n{TOUCH.format(mb=60)}time.sleep(2)"
    result = sandbox.run_python(program, limits=Limits(memory_mb=128))
    assert result.status is Status.MEMORY
    assert "together" in result.message


def test_processes(sandbox: Sandbox) -> None:
    program = (
        "import os, time\nchildren = 0\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(9)\n"
        "    children += 1\nexcept BlockingIOError: print(children, flush=True)\nos._exit(0)"
    )
    for processes in (1, 4, 16):
        result = sandbox.run_python(program, limits=Limits(processes=processes))
        assert result.stdout == f"{processes - 1}\n".encode()


def test_threads_and_pools_work_within_the_limit(sandbox: Sandbox) -> None:
    program = (
        "from concurrent.futures import ThreadPoolExecutor\nimport multiprocessing\n"
        "with ThreadPoolExecutor(4) as pool: print(sum(pool.map(abs, range(-9, 1))))\n"
        "with multiprocessing.Pool(2) as pool: print(pool.map(abs, [-1, -2]))"
    )
    result = sandbox.run_python(program)
    assert result.stdout == b"45\n[1, 2]\n", result


def test_file_size_and_disk(sandbox: Sandbox) -> None:
    program = (
        "import sys\ntry:\n  for name in 'abcdefgh':\n    with open(name, 'wb') as file:\n"
        "      for _ in range(int(sys.argv[1])): file.write(bytes(1 << 20))\nexcept OSError as error:\n"
        "  print(name, error.errno)"
    )
    limits = Limits(file_size_mb=4, disk_mb=12)
    assert sandbox.run_python(program, args=["5"], limits=limits).stdout == b"a 27\n"  # EFBIG
    assert sandbox.run_python(program, args=["3"], limits=limits).stdout == b"d 28\n"  # ENOSPC
    assert sandbox.run_python(program, args=["1"], limits=limits).stdout == b""


def test_open_files(sandbox: Sandbox) -> None:
    program = (
        "import os\ntry:\n  while True: last = os.open('/dev/null', 0)\n"
        "except OSError as e: print(last, e.errno)"
    )
    assert sandbox.run_python(program, limits=Limits(open_files=20)).stdout == b"19 24\n"


def test_a_wall_time_shorter_than_we_wait_before_we_look(sandbox: Sandbox) -> None:
    result = sandbox.run_python("while True: pass", limits=Limits(wall_s=0.001))
    assert result.status is Status.TIMEOUT
    assert result.wall_s < 10


@pytest.mark.parametrize("number", [1, 3])
def test_output_limit_keeps_the_first_bytes(number: int, sandbox: Sandbox) -> None:
    program = f"import os\nfor i in range(9): os.write({number}, bytes([65 + i]) * 1024)"
    fits = sandbox.run_python(program, limits=Limits(output_kb=9))
    over = sandbox.run_python(program, limits=Limits(output_kb=8))
    field = {1: "stdout", 3: "reply"}[number]
    whole = b"".join(bytes([65 + i]) * 1024 for i in range(9))
    assert fits.status is Status.OK
    assert getattr(fits, field) == whole
    assert over.status is Status.OUTPUT_LIMIT
    assert getattr(over, field) == whole[: 8 * 1024]
    assert field in over.message


def test_much_on_stderr_is_read_and_cut(sandbox: Sandbox) -> None:
    program = "import sys\nfor i in range(50): print('d' * 100_000, file=sys.stderr)\nprint('done')"
    result = sandbox.run_python(program, limits=Limits(output_kb=128))
    assert (result.status, result.stdout) == (Status.OK, b"done\n"), result.message
    assert result.stderr == b"d" * 100_000 + b"\n" + b"d" * (128 * 1024 - 100_001)
    flood = sandbox.run_python("import os\nwhile True: os.write(2, b'x' * 65536)", limits=Limits(output_kb=8))
    assert flood.status is Status.OUTPUT_LIMIT
    assert "64 times output_kb=8 KiB to stderr" in flood.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wall_s", 0),
        ("wall_s", float("nan")),
        ("wall_s", float("inf")),
        ("wall_s", "5"),
        ("memory_mb", 128.5),
        ("processes", True),
        ("disk_mb", None),
        ("cpu_s", float("inf")),
        ("memory_mb", 0),
        ("processes", 0),
        ("cpu_s", 0),
        ("open_files", 3),
    ],
)
def test_senseless_limits_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(Limits(), **{name: value})  # type: ignore[arg-type]


def test_a_memory_limit_too_small_for_the_sandbox_itself_is_not_the_programs_fault(sandbox: Sandbox) -> None:
    result = sandbox.run_python("pass", files={"big": bytes(20 << 20)}, limits=Limits(disk_mb=8))
    assert result.status is Status.SANDBOX_ERROR
    assert "No space left" in result.message
