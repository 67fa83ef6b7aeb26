"""What `deterministic: true` costs: the quickstart's steps with and without it, from the same model.

    python benchmarks/deterministic_cost.py [--steps 10] [--repeats 3] [--model FOLDER]

The model is the quickstart's after its SFT, or the one in FOLDER. Deterministic means one thread on the
CPU and only kernels that give the same bits every time. Sides alternate, each in a process of its
own; a third one has one thread without the deterministic kernels, so that the two can be told apart.
Shown are medians over the steps of all repeats, the first two of each left out. The checkpoints of all
deterministic runs must be the same bytes. GPUs are not measured.
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

SIDES = ("default", "one_thread", "deterministic")
STAGES = ("step", "rollout", "update", "sync")
QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.yaml"


def run_side(side: str, model: Path, run_dir: Path, steps: int) -> None:
    """Train; leave {stage: [seconds per step]} and the digest of the last checkpoint's weights."""
    import torch
    from rich.console import Console

    from verl_lite.engine import train
    from verl_lite.engine.config import TrainConfig
    from verl_lite.engine.observe import read_metrics
    from verl_lite.plugins import load_config

    changes = [f"steps={steps}", "sft.steps=0", "model.tiny=null", f"model.path={model}"]
    changes += ["data.held_out=null", "logging.trackers=[]", "checkpoints.every_steps=0"]
    if side == "deterministic":
        changes.append("deterministic=true")
    if side == "one_thread":
        torch.set_num_threads(1)
    train(load_config(TrainConfig, QUICKSTART, changes), run_dir=run_dir, console=Console(file=io.StringIO()))
    rows = read_metrics(run_dir / "metrics.jsonl")[2:]
    weights = run_dir / "checkpoints" / f"step_{steps:06d}" / "policy" / "model.safetensors"
    result = {
        "seconds": {stage: [row[f"time/{stage}_s"] for row in rows] for stage in STAGES},
        "digest": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    (run_dir / "result.json").write_text(json.dumps(result))


def warm_up(folder: Path) -> Path:
    """The quickstart's model after its SFT."""
    from rich.console import Console

    from verl_lite.engine import train_only_sft
    from verl_lite.engine.config import TrainConfig
    from verl_lite.plugins import load_config

    changes = ["logging.trackers=[]", "checkpoints.every_steps=0"]
    config = load_config(TrainConfig, QUICKSTART, changes)
    train_only_sft(config, run_dir=folder, console=Console(file=io.StringIO()))
    return folder / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--run-dir", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.model, options.run_dir, options.steps)
        return
    seconds: dict[str, dict[str, list[float]]] = {side: {stage: [] for stage in STAGES} for side in SIDES}
    digests: dict[str, set[str]] = {side: set() for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or warm_up(folder / "sft")
        for repeat in range(options.repeats):
            for side in SIDES:
                run_dir = folder / f"{side}-{repeat}"
                command = [sys.executable, __file__, "--side", side, "--model", str(model)]
                command += ["--run-dir", str(run_dir), "--steps", str(options.steps)]
                done = subprocess.run(command, check=False, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
                result = json.loads((run_dir / "result.json").read_text())
                digests[side].add(result["digest"])
                for stage in STAGES:
                    seconds[side][stage] += result["seconds"][stage]
                shown = median(result["seconds"]["step"])
                print(f"{side:<14} {shown:.3f} s per step, load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"{'median, s':<14}" + "".join(f"{stage:>10}" for stage in STAGES) + "   different results")
    for side in SIDES:
        medians = "".join(f"{median(seconds[side][stage]):>10.3f}" for stage in STAGES)
        print(f"{side:<14}{medians}   {len(digests[side])} of {options.repeats}")
    ratio = median(seconds["deterministic"]["step"]) / median(seconds["default"]["step"])
    print(f"deterministic / default: {ratio:.2f}")
    sys.exit(len(digests["deterministic"]) > 1)


if __name__ == "__main__":
    main()
