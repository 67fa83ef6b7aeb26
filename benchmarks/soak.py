"""A long run: do memory, open files and step time stay flat?

python benchmarks/soak.py --steps 2000
"""

import argparse
import io
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from rich.console import Console

from verl_lite.engine.config import TrainConfig
from verl_lite.engine.metrics_log import read_metrics
from verl_lite.engine.run import train
from verl_lite.plugins.config_file import load_config

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.yaml"


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def slope_per_hour(values: Sequence[float], every_s: float) -> float:
    """By least squares."""
    times = [i * every_s / 3600 for i in range(len(values))]
    mean_t, mean_v = fmean(times), fmean(values)
    spread = sum((t - mean_t) ** 2 for t in times)
    return sum((t - mean_t) * (v - mean_v) for t, v in zip(times, values, strict=True)) / spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every-s", type=float, default=1.0)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    changes = [f"steps={options.steps}", "data.held_out.num_rows=8", *options.overrides]
    config = load_config(TrainConfig, QUICKSTART, changes)
    memory_mb: list[float] = []
    files: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(options.every_s):
            memory_mb.append(resident_mb())
            files.append(float(len(os.listdir("/proc/self/fd"))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(config, run_dir=Path(folder) / "run", console=Console(file=io.StringIO()))
        finally:
            done.set()
            watcher.join()
        seconds = [row["time/step_s"] for row in read_metrics(Path(folder) / "run" / "metrics.jsonl")]
    part = min(100, len(seconds) // 3)
    first, last = median(seconds[1 : part + 1]), median(seconds[-part:])
    late = len(memory_mb) // 2  # start-up is no leak
    rise = slope_per_hour(memory_mb[late:], options.every_s)
    print(f"{len(seconds)} steps; median step, first {part} {first:.3f} s, last {part} {last:.3f} s")
    print(f"last over first {last / first:.3f}")
    print(f"memory {memory_mb[late]:.0f} MB to {memory_mb[-1]:.0f} MB, slope {rise:+.0f} MB/h")
    rise = slope_per_hour(files[late:], options.every_s)
    print(f"descriptors {files[late]:.0f} to {files[-1]:.0f}, slope {rise:+.1f}/h")


if __name__ == "__main__":
    main()
