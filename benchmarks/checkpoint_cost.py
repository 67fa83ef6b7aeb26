"""What checkpoints cost: how long training stands still, and the write speed against a plain copy.

    python benchmarks/checkpoint_cost.py --steps 41 --every 10

The quickstart with its SFT (without it no group has any variance so early, and the optimiser no moments
to save), less what is not training: held-out evaluation and trackers. A checkpoint is written beside
training; its write speed is measured afterwards, when nothing else runs: the newest one is loaded and
saved again (copy out of the way, write, SHA-256, flush, rename), and its files are copied and flushed
with and without the sums. Medians of `--repeats`.
"""

import argparse
import io
import os
import shutil
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace

from rich.console import Console

from verl_lite.engine import train
from verl_lite.engine.config import CheckpointConfig, TrainConfig
from verl_lite.engine.learner import start_saving
from verl_lite.engine.observe import read_metrics
from verl_lite.engine.rundir import CheckpointWriter, load_tensors, write_manifest
from verl_lite.plugins import load_config

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.yaml"


def copy_seconds(source: Path, target: Path, *, manifest: bool) -> float:
    """To copy the files and flush them, with or without the sums."""
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


def save_seconds(source: Path, folder: Path, repeats: int) -> list[float]:
    """To save the checkpoint in `source` again, as a run does."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source / "policy")
    tokenizer = AutoTokenizer.from_pretrained(source / "policy")
    state = load_tensors(source / "learner.pt")
    learner = SimpleNamespace(
        policy=SimpleNamespace(model=model), state_dict=lambda: {"model": None, **state}
    )
    seconds = []
    for step in range(1, repeats + 1):
        started = time.perf_counter()
        saving = partial(start_saving, learner, tokenizer=tokenizer)
        with closing(CheckpointWriter(folder, CheckpointConfig(keep=0))) as writer:
            writer.submit(step=step, start_saving=saving, trainer={"metrics": {}})
            writer.finish()
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=41)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    changes = [f"steps={options.steps}", f"checkpoints.every_steps={options.every}"]
    changes += ["data.held_out.num_rows=8", "logging.trackers=[]"]
    config = load_config(TrainConfig, QUICKSTART, changes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(config, run_dir=folder / "run", console=Console(file=io.StringIO()))
        rows = read_metrics(folder / "run" / "metrics.jsonl")[1:]  # the first step loads what is loaded late
        stalled = sum(row["time/checkpoint_s"] for row in rows)
        whole = stalled + sum(row["time/step_s"] for row in rows)
        stops = sum(row["time/checkpoint_s"] > 0 for row in rows)
        print(f"load {os.getloadavg()[0]:.1f}")
        part = f"{stalled:.3f} s of {whole:.1f} s ({stops} checkpoints): {stalled / whole:.2%}"
        print(f"training stood still {part}")
        newest = max((folder / "run" / "checkpoints").iterdir())
        num_bytes = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
        timed = {"saved as a run does": save_seconds(newest, folder / "saved", options.repeats)}
        for what, manifest in (("plain copy", False), ("copy with SHA-256", True)):
            timed[what] = [
                copy_seconds(newest, folder / f"{manifest}-{i}", manifest=manifest)
                for i in range(options.repeats)
            ]
    print(f"a checkpoint has {num_bytes / 1e6:.1f} MB")
    for what, seconds in timed.items():
        print(f"{what:<20} {median(seconds):.3f} s  {num_bytes / 1e6 / median(seconds):,.0f} MB/s")


if __name__ == "__main__":
    main()
