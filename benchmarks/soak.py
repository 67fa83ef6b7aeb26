"""A long run: do memory, open files and step time stay flat?

    python benchmarks/soak.py --steps 2000 --run-dir soak

progress.jsonl in the run's folder gets a line every ten seconds: step, memory of this process and of its
reward workers, descriptors. It and the line printed every 100 steps can be watched. The same command on a
folder that holds a run continues it. With --report nothing runs: it sums up the folder,
also while a run is writing it.

Does a step take longer because the process has grown old? The machine's own speed drifts within an hour, and
the policy's answers change their length. So after `--steps` the process stops itself, as after Ctrl-C, and a
new one resumes for `--control` steps more: same weights, same hour, and only the process is new.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console

from verl_lite.engine import train
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.observe import read_metrics
from verl_lite.plugins import load_config

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.yaml"
EDGE_STEPS = 100
Row = dict[str, Any]


def resident_mb(pid: int) -> float:
    """Resident memory of a process; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def descendants(pid: int) -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
    found, waiting = [], [pid]
    while waiting:
        children = [child for child, parent in parents.items() if parent == waiting[-1]]
        waiting.pop()
        found += children
        waiting += children
    return found


class Watcher(threading.Thread):
    """Writes a line of progress now and then until `done` is set; interrupts the run at `stop_at`."""

    def __init__(self, run_dir: Path, *, every_s: float, stop_at: int | None) -> None:
        super().__init__(daemon=True)
        self._run_dir = run_dir
        self._every_s = every_s
        self._stop_at = stop_at
        self.done = threading.Event()

    def run(self) -> None:
        pid, shown, is_stopped = os.getpid(), 0, False
        while not self.done.wait(self._every_s):
            step = steps_done(self._run_dir)
            if self._stop_at is not None and step >= self._stop_at and not is_stopped:
                is_stopped = True
                os.kill(pid, signal.SIGINT)
            if not self._run_dir.is_dir():
                continue
            row = {
                "step": step,
                "pid": pid,
                "time": time.time(),
                "cpu_s": time.process_time(),
                "memory_mb": resident_mb(pid),
                "workers_mb": sum(map(resident_mb, descendants(pid))),
                "descriptors": len(os.listdir("/proc/self/fd")),
            }
            with (self._run_dir / "progress.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            if step // 100 > shown:
                shown = step // 100
                print(f"step {step}: {row['memory_mb']:.0f} MB, {row['descriptors']} descriptors", flush=True)


def steps_done(run_dir: Path) -> int:
    """The steps of RL that metrics.jsonl has."""
    path = run_dir / "metrics.jsonl"
    return path.read_bytes().count(b'"time/step_s"') if path.exists() else 0


def slope_per_1000_steps(rows: Sequence[Row], name: str) -> float:
    """By least squares."""
    steps = [row["step"] / 1000 for row in rows]
    values = [float(row[name]) for row in rows]
    mean_s, mean_v = fmean(steps), fmean(values)
    spread = sum((s - mean_s) ** 2 for s in steps)
    return sum((s - mean_s) * (v - mean_v) for s, v in zip(steps, values, strict=True)) / spread


def report(run_dir: Path) -> None:
    """Print what the folder tells, of each process; of its memory the second half, as start-up is no leak."""
    rows = read_metrics(run_dir / "progress.jsonl")
    seconds = [row["time/step_s"] for row in read_metrics(run_dir / "metrics.jsonl") if "time/step_s" in row]
    for pid in dict.fromkeys(row["pid"] for row in rows):
        of_process = [row for row in rows if row["pid"] == pid and row["step"]]
        end = of_process[-1]["step"] if of_process else 0
        training = [row for row in of_process if row["step"] < end]  # at its end it is being taken down
        if len({row["step"] for row in training}) > 3:
            report_process(training, seconds)


def report_process(rows: Sequence[Row], seconds: Sequence[float]) -> None:
    first, last = rows[0]["step"], rows[-1]["step"]
    late = [row for row in rows if row["step"] >= (first + last) / 2]
    print(f"process {rows[0]['pid']}: steps {first} to {last}; the second half from {late[0]['step']}:")
    for name, unit in (("memory_mb", "MB"), ("workers_mb", "MB"), ("descriptors", "")):
        slope = slope_per_1000_steps(late, name)
        begin, end = late[0][name], late[-1][name]
        print(
            f"  {name.removesuffix('_mb'):11} {begin:.0f} to {end:.0f} {unit}, {slope:+.2f} per 1,000 steps"
        )
    own = seconds[first:last]
    part = min(EDGE_STEPS, len(own) // 2)
    first_s, last_s = median(own[:part]), median(own[-part:])
    cpu_s = (rows[-1]["cpu_s"] - rows[0]["cpu_s"]) / (last - first)
    print(
        f"  median step {first_s:.3f} s in the first {part} steps, {last_s:.3f} s in the last {part} "
        f"(last / first = {last_s / first_s:.3f}); {cpu_s:.3f} CPU s per step"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/soak"))
    parser.add_argument("--control", type=int, default=100)
    parser.add_argument("--every-s", type=float, default=10.0)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    if options.report:
        report(options.run_dir)
        return
    total = options.steps + options.control
    changes = [f"steps={total}", "data.held_out.num_rows=8", *options.overrides]
    config = load_config(TrainConfig, QUICKSTART, changes)
    is_old = steps_done(options.run_dir) >= options.steps
    stop_at = None if is_old or not options.control else options.steps
    watcher = Watcher(options.run_dir, every_s=options.every_s, stop_at=stop_at)
    watcher.start()
    resume = (options.run_dir / "config.yaml").is_file()
    try:
        train(config, run_dir=options.run_dir, resume=resume, console=Console(file=io.StringIO()))
    finally:
        watcher.done.set()
        watcher.join()
    if stop_at is None:
        report(options.run_dir)
    else:
        subprocess.run([sys.executable, *sys.argv], check=True)  # the control, which reports


if __name__ == "__main__":
    main()
