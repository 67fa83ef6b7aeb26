"""A long run: do memory, open files and step time stay flat?

    python benchmarks/soak.py --steps 2000 --run-dir soak

progress.jsonl in the run's folder gets a line every ten seconds: step, memory of this process and of its
reward workers, descriptors. It and the line printed every 100 steps can be watched. The same command on a
folder that holds a run goes on with it; slopes are then those of the last process. With --report nothing
runs: what the folder holds is summed up, also while a run is writing it.
"""

import argparse
import io
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console

from verl_lite.engine.config import TrainConfig
from verl_lite.engine.metrics_log import read_metrics
from verl_lite.engine.run import train
from verl_lite.plugins.config_file import load_config

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
    """Writes a line of progress now and then until `done` is set."""

    def __init__(self, run_dir: Path, *, every_s: float) -> None:
        super().__init__(daemon=True)
        self._run_dir = run_dir
        self._every_s = every_s
        self.done = threading.Event()

    def run(self) -> None:
        pid, shown = os.getpid(), 0
        while not self.done.wait(self._every_s):
            step = count_lines(self._run_dir / "metrics.jsonl")
            if not self._run_dir.is_dir():
                continue
            row = {
                "step": step,
                "pid": pid,
                "time": time.time(),
                "memory_mb": resident_mb(pid),
                "workers_mb": sum(map(resident_mb, descendants(pid))),
                "descriptors": len(os.listdir("/proc/self/fd")),
            }
            with (self._run_dir / "progress.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            if step // 100 > shown:
                shown = step // 100
                print(f"step {step}: {row['memory_mb']:.0f} MB, {row['descriptors']} descriptors", flush=True)


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def slope_per_1000_steps(rows: Sequence[Row], name: str) -> float:
    """By least squares."""
    steps = [row["step"] / 1000 for row in rows]
    values = [float(row[name]) for row in rows]
    mean_s, mean_v = fmean(steps), fmean(values)
    spread = sum((s - mean_s) ** 2 for s in steps)
    return sum((s - mean_s) * (v - mean_v) for s, v in zip(steps, values, strict=True)) / spread


def report(run_dir: Path) -> None:
    """Print what the folder tells: of memory and descriptors the second half, as start-up is no leak."""
    rows = read_metrics(run_dir / "progress.jsonl")
    last = [row for row in rows if row["pid"] == rows[-1]["pid"] and row["step"]]
    middle = (last[0]["step"] + last[-1]["step"]) / 2
    late = [row for row in last if row["step"] >= middle]
    if late[0]["step"] == late[-1]["step"]:
        raise SystemExit(f"{run_dir}: too few lines of progress for a slope yet")
    print(f"steps {last[0]['step']} to {last[-1]['step']}; the second half from {late[0]['step']}:")
    for name, unit in (("memory_mb", "MB"), ("workers_mb", "MB"), ("descriptors", "")):
        slope = slope_per_1000_steps(late, name)
        first, end = late[0][name], late[-1][name]
        print(
            f"  {name.removesuffix('_mb'):11} {first:.0f} to {end:.0f} {unit}, {slope:+.2f} per 1,000 steps"
        )
    seconds = [row["time/step_s"] for row in read_metrics(run_dir / "metrics.jsonl")]
    part = min(EDGE_STEPS, len(seconds) // 3)
    first_s, last_s = median(seconds[1 : part + 1]), median(seconds[-part:])
    print(
        f"  median step {first_s:.3f} s in the first {part} steps, {last_s:.3f} s in the last {part}: "
        f"last / first = {last_s / first_s:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/soak"))
    parser.add_argument("--every-s", type=float, default=10.0)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    if options.report:
        report(options.run_dir)
        return
    changes = [f"steps={options.steps}", "data.held_out.num_rows=8", *options.overrides]
    config = load_config(TrainConfig, QUICKSTART, changes)
    watcher = Watcher(options.run_dir, every_s=options.every_s)
    watcher.start()
    resume = (options.run_dir / "config.yaml").is_file()
    try:
        train(config, run_dir=options.run_dir, resume=resume, console=Console(file=io.StringIO()))
    finally:
        watcher.done.set()
        watcher.join()
    report(options.run_dir)


if __name__ == "__main__":
    main()
