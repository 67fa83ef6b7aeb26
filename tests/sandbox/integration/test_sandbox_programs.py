"""Honest programs: what they read, what they print, and where they find themselves."""

from pathlib import Path
from typing import Any

import pytest

from verl_lite.errors import SandboxError
from verl_lite.sandbox import Limits, Sandbox, Status

NUMBERS = "\n".join(map(str, range(1, 1001))) + "\n"
READERS = {
    "input": "n = 0\ntry:\n  while True: n += int(input())\nexcept EOFError: print(n)",
    "stdin": "import sys\nprint(sum(map(int, sys.stdin)))",
    "stdin.read": "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
    "stdin.readline": "import sys\nn = 0\nwhile line := sys.stdin.readline(): n += int(line)\nprint(n)",
    "stdin.buffer": "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
    "stdin.buffer.raw": "import sys\nprint(sum(map(int, sys.stdin.buffer.raw.readall().split())))",
    "os.read": "import os\ndata = b''\nwhile part := os.read(0, 99): data += part\n"
    "print(sum(map(int, data.split())))",
    "open(0)": "print(sum(map(int, open(0).read().split())))",
    "/dev/stdin": "print(sum(map(int, open('/dev/stdin').read().split())))",
    "fileinput": "import fileinput\nprint(sum(int(line) for line in fileinput.input()))",
    "size first": "import io, os\ndata = os.read(0, os.fstat(0).st_size)\n"
    "print(sum(map(int, io.BytesIO(data).read().split())))",
    "thread": (
        "import sys, threading\ndef work(): print(sum(map(int, sys.stdin)))\n"
        "t = threading.Thread(target=work); t.start(); t.join()"
    ),
    "deep thread": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(32 << 20)\n"
        "def down(n): return 0 if n == 0 else 1 + down(n - 1)\n"
        "def work(): print(sum(map(int, sys.stdin)) + down(50000) - 50000)\n"
        "threading.Thread(target=work).start()"
    ),
    "select": "import select, sys\nselect.select([sys.stdin], [], [])\nprint(sum(map(int, sys.stdin)))",
}


@pytest.mark.parametrize("name", READERS)
def test_every_way_to_read_stdin(name: str, sandbox: Sandbox) -> None:
    result = sandbox.run_python(READERS[name], stdin=NUMBERS)
    assert result.stdout == b"500500\n", result


def test_large_input_and_output(sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 32768  # 8 MiB
    program = "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())"
    result = sandbox.run_python(program, stdin=data, limits=Limits(output_kb=8192))
    assert result.status is Status.OK
    assert result.stdout == data


def test_output_is_bytes(sandbox: Sandbox) -> None:
    program = "import os\nos.write(1, bytes(range(256)))\nos.write(2, b'\\xff')\nos.write(3, b'\\x00')"
    result = sandbox.run_python(program)
    assert (result.stdout, result.stderr, result.reply) == (bytes(range(256)), b"\xff", b"\x00")


def test_printing_does_not_mix_with_the_reply(sandbox: Sandbox) -> None:
    result = sandbox.run_python("import os\nprint('to stdout')\nos.write(3, b'to the reply')")
    assert (result.stdout, result.reply) == (b"to stdout\n", b"to the reply")


@pytest.mark.parametrize("text", ["F: not a failure of ours", "S", "", "SF" * 40])
def test_the_reply_may_begin_with_anything(text: str, sandbox: Sandbox) -> None:
    result = sandbox.run_python(f"import os\nos.write(3, {text.encode()!r})")
    assert (result.status, result.reply) == (Status.OK, text.encode())


def test_files_that_do_not_fit_are_our_fault_and_said(sandbox: Sandbox) -> None:
    result = sandbox.run_python("pass", files={"big": bytes(3 << 20)}, limits=Limits(disk_mb=1))
    assert result.status is Status.SANDBOX_ERROR
    assert result.message == "OSError: [Errno 28] No space left on device"
    assert sandbox.run_python("print(1)").stdout == b"1\n"


def test_a_child_process_can_print_too(sandbox: Sandbox) -> None:
    program = (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', 'print(6 * 7)'], check=True)"
    )
    result = sandbox.run_python(program, limits=Limits(wall_s=10))
    assert result.stdout == b"42\n", result


def test_files_arguments_and_modules(sandbox: Sandbox) -> None:
    program = (
        "import sys, os, helper, package.part as part\n"
        "print(__name__, os.path.basename(__file__), sys.argv[1:], helper.x, part.y)\n"
        "print(open('data/d.txt').read())"
    )
    files = {"helper.py": b"x = 1", "package/part.py": b"y = 2", "data/d.txt": b"text"}
    result = sandbox.run_python(program, files=files, args=["a b", "é"])
    assert result.stdout.decode() == "__main__ main.py ['a b', 'é'] 1 2\ntext\n", result


def test_main_can_be_inspected_and_traced(sandbox: Sandbox) -> None:
    program = "import inspect\ndef f():\n    return 1 / 0\nprint(inspect.getsource(f).strip())\nf()"
    result = sandbox.run_python(program)
    assert result.stdout == b"def f():\n    return 1 / 0\n"
    trace = result.stderr.decode()
    assert 'main.py", line 3, in f\n    return 1 / 0' in trace
    assert trace.count("File ") == 2  # none of ours


@pytest.mark.parametrize("name", ["/abs", "../up", "a/../b", "", "main.py", "a//b", "."])
def test_file_names_stay_inside(name: str, sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="files"):
        sandbox.run_python("pass", files={name: b""})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stdin": None}, "stdin: expected bytes or text, got NoneType"),
        ({"files": {"a": "text"}}, r"files\['a'\]: expected a name and bytes, got str"),
        ({"files": {"a": 5}}, r"files\['a'\]: expected a name and bytes, got int"),
        ({"args": "-v"}, "args: expected a list of arguments, got the text '-v'"),
        ({"args": [1]}, "args: 1: expected text, got int"),
        ({"limits": {"wall_s": 1}}, "limits: expected Limits, got dict"),
        ({"source": b"pass"}, "source: expected text, got bytes"),
    ],
)
def test_what_is_no_input_is_refused_and_costs_nothing(
    given: dict[str, Any], message: str, sandbox: Sandbox
) -> None:
    with pytest.raises(TypeError, match=message):
        sandbox.run_python(**{"source": "pass", **given})


def test_half_characters_reach_the_program(sandbox: Sandbox) -> None:
    program = "import sys\nprint(sys.stdin.buffer.read())"
    assert sandbox.run_python(program, stdin="\ud800").stdout == b"b'\\xed\\xa0\\x80'\n"


def test_runs_share_nothing(sandbox: Sandbox) -> None:
    write = "import builtins, os, sys, json\nbuiltins.len = json.dumps = None\nos.environ['X'] = '1'\n"
    write += (
        "open('/tmp/left', 'w').write('x'); open('/dev/shm/left', 'w').write('x'); sys.modules['re'] = None"
    )
    look = "import os, json, re\nprint(sorted(os.listdir('/tmp')), os.listdir())\n"
    look += "print('X' in os.environ, json.dumps(1))"
    for _ in range(4):  # both workers
        assert sandbox.run_python(write).status is Status.OK
        assert sandbox.run_python(look).stdout == b"['.shm', 'work'] ['main.py']\nFalse 1\n"


def test_a_program_sees_little(sandbox: Sandbox) -> None:
    program = (
        "import os, socket\nprint(sorted(os.listdir('/')), os.getpid(), os.getcwd(), socket.gethostname())\n"
        "print(sorted(os.environ), os.listdir('/dev/shm'), [p for p in os.listdir('/proc') if p.isdigit()])"
    )
    lines = sandbox.run_python(program).stdout.decode().splitlines()
    assert lines[0].endswith("] 2 /private/tmp/work sandbox")
    assert not {"home", "var", "run", "sys", "boot", "mnt", "srv"} & set(eval(lines[0].split("]")[0] + "]"))
    assert "'HOME', 'LANG', 'MALLOC_ARENA_MAX', 'OMP_NUM_THREADS'" in lines[1]
    assert lines[1].endswith("[] ['2']")


def test_the_same_program_has_the_same_set_order_but_its_own_randomness(sandbox: Sandbox) -> None:
    sets = {sandbox.run_python("print({'a', 'b', 'c', 'd', 'e', 'f', 'g'})").stdout for _ in range(6)}
    numbers = {sandbox.run_python("import random; print(random.random())").stdout for _ in range(6)}
    assert (len(sets), len(numbers)) == (1, 6)


def test_read_only_paths_are_importable() -> None:
    folder = Path(pytest.__file__).parent.parent  # site-packages
    if folder.is_relative_to("/tmp"):
        pytest.skip("a run's own /tmp hides what lies below it")
    with Sandbox(workers=1, backend="native", read_only_paths=[str(folder)]) as own:
        program = f"import pluggy\nprint(pluggy.__name__)\nopen({str(folder / 'x')!r}, 'w')"
        result = own.run_python(program, limits=Limits(wall_s=20))
    assert result.stdout == b"pluggy\n", result
    assert b"Read-only file system" in result.stderr or b"Permission denied" in result.stderr
    assert not (folder / "x").exists()


@pytest.mark.parametrize("path", ["/", "/tmp", "/proc/self", "/does/not/exist"])
def test_read_only_paths_that_cannot_be_shown(path: str) -> None:
    with pytest.raises(SandboxError, match="read_only_paths"):
        Sandbox(workers=1, read_only_paths=[path])


def test_devices(sandbox: Sandbox) -> None:
    program = "open('/dev/null', 'w').write('x'); print(open('/dev/zero', 'rb').read(2))\n"
    program += "print(len(open('/dev/urandom', 'rb').read(9)))"
    assert sandbox.run_python(program).stdout == b"b'\\x00\\x00'\n9\n"


HONEST = {
    "a large stack for a thread": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(512 << 20)\n"
        "def depth(n): return 0 if n == 0 else 1 + max([depth(n - 1)])\n"
        "thread = threading.Thread(target=lambda: print(depth(50_000)))\nthread.start()\nthread.join()",
        b"50000\n",
    ),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\n"
        "print(f(100_000))",
        b"100000\n",
    ),
    "deep recursion through C": (
        "import functools, sys\nsys.setrecursionlimit(10**6)\n@functools.lru_cache(None)\n"
        "def f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(20_000))",
        b"20000\n",
    ),
    "a stack without a limit": (
        "import resource as r\nr.setrlimit(r.RLIMIT_STACK, (r.RLIM_INFINITY, r.RLIM_INFINITY))\nprint(6)",
        b"6\n",
    ),
    "many threads": (
        "from concurrent.futures import ThreadPoolExecutor as E\nimport time\n"
        "with E(32) as e: print(sum(e.map(lambda x: (time.sleep(.01), x)[1], range(64))))",
        b"2016\n",
    ),
    "a manager": (
        "from multiprocessing import Manager, Process\ndef work(d): d['x'] = 7\n"
        "if __name__ == '__main__':\n  with Manager() as m:\n    d = m.dict()\n"
        "    p = Process(target=work, args=(d,)); p.start(); p.join(); print(d)",
        b"{'x': 7}\n",
    ),
    "a pool, a queue, shared values": (
        "from multiprocessing import Pool, Queue, Value, shared_memory\nif __name__ == '__main__':\n"
        "  with Pool(3) as p: print(p.map(abs, [-1, -2]))\n  q = Queue(); q.put(3); print(q.get())\n"
        "  print(Value('i', 4).value)\n"
        "  s = shared_memory.SharedMemory(create=True, size=9)\n"
        "  s.buf[0] = 5; print(s.buf[0]); s.close(); s.unlink()",
        b"[1, 2]\n3\n4\n5\n",
    ),
    "shared anonymous memory": (
        "import mmap, os\nblock = mmap.mmap(-1, 1 << 20)\nif os.fork() == 0:\n  block[0] = 7\n  os._exit(0)\n"
        "os.wait()\nprint(block[0])",
        b"7\n",
    ),
    "an own server": (
        "import socket, threading\ns = socket.socket(socket.AF_UNIX); s.bind('door'); s.listen()\n"
        "t = threading.Thread(target=lambda: s.accept()[0].sendall(b'hi')); t.start()\n"
        "c = socket.socket(socket.AF_UNIX); c.connect('door'); print(c.recv(9)); t.join()",
        b"b'hi'\n",
    ),
    "a large number as text": ("print(len(str(int('9' * 5000) + 1)))", b"5001\n"),
    "stdout by its name": ("with open('/dev/stdout', 'w') as out: out.write('kept')", b"kept"),
    "the input, mapped": (
        "import mmap, sys\nprint(mmap.mmap(0, 0, access=mmap.ACCESS_READ).read())",
        b"b'41\\n'\n",
    ),
    "zeros": ("print(open('/dev/zero', 'rb').read(2))", b"b'\\x00\\x00'\n"),
    "leaving": ("print(callable(help)); exit()", b"True\n"),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_that_ask_for_much(name: str, sandbox: Sandbox) -> None:
    program, stdout = HONEST[name]
    result = sandbox.run_python(program, stdin="41\n", limits=Limits(wall_s=20, processes=64))
    assert (result.status, result.stdout) == (Status.OK, stdout), result
