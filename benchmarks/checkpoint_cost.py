"""What checkpoints cost: how long training stands still, and the write speed against a plain copy.

python benchmarks/checkpoint_cost.py --steps 21 --every 10
"""

import argparse
import io
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console

from verl_lite.engine.checkpoint_files import write_manifest
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.metrics_log import read_metrics
from verl_lite.engine.run import train
from verl_lite.plugins.config_file import load_config

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.yaml"


def copy_like_a_checkpoint(source: Path, target: Path, *, manifest: bool) -> float:
    """Seconds to copy the files and flush them, with or without the sums."""
    started = time.perf_counter()
    shutil.copytree(source, target)
    if manifest:
        write_manifest(target)
    else:
        for path in target.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=21)
    parser.add_argument("--every", type=int, default=10)
    options = parser.parse_args()
    changes = [f"steps={options.steps}", "sft.steps=0", f"checkpoints.every_steps={options.every}"]
    changes += ["data.held_out.num_rows=8", "logging.trackers=[]"]
    config = load_config(TrainConfig, QUICKSTART, changes)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        train(config, run_dir=run_dir, console=Console(file=io.StringIO()))
        rows = read_metrics(run_dir / "metrics.jsonl")[1:]  # the first step loads what is loaded late
        stalled = sum(row["time/checkpoint_s"] for row in rows)
        whole = stalled + sum(row["time/step_s"] for row in rows)
        newest = max((run_dir / "checkpoints").iterdir())
        num_bytes = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
        plain, summed = (
            median(
                copy_like_a_checkpoint(newest, Path(folder) / f"{manifest}-{i}", manifest=manifest)
                for i in range(5)
            )
            for manifest in (False, True)
        )
    print(f"training stood still {stalled:.3f} s of {whole:.1f} s: {stalled / whole:.2%}")
    print(f"a checkpoint has {num_bytes / 1e6:.1f} MB; plain copy {plain:.3f} s, with SHA-256 {summed:.3f} s")


if __name__ == "__main__":
    main()
