"""The quickstart in one process and with 2 learner ranks + 2 engines through Ray: curve and time of a step.

    python benchmarks/cluster_quickstart.py [--seeds 0 1 2] [--steps 40] [--folder DIR] [key.path=value ...]

SFT runs once; all begin with its model, and both sides of a seed draw the same prompts and sampling seeds.
The curves are compared by the mean difference of rollout/accuracy over the steps of a seed, against its
spread over the seeds, and by held-out accuracy at the end. The overhead of a step is the median of what
time/step_s has more, in all and by stage; where there are fewer cores than processes it contains what they
take from each other. Runs that `--folder` has are not made again, so that a call may do one seed.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parent.parent / "examples" / "quickstart.yaml"
SIDES = {
    "one process": [],
    "2 ranks + 2 engines": ["learner.num_ranks=2", "learner.parallel=replicated", "rollout.num_engines=2"],
}
STAGES = ("step", "rollout", "reward", "update", "sync")


def verl_lite(command: str, place: Path, *overrides: str) -> None:
    """The run into `place`, unless it is there whole."""
    if (place / "summary.json").is_file():
        return
    shutil.rmtree(place, ignore_errors=True)  # one that was cut off
    arguments = [str(Path(sys.executable).parent / "verl-lite"), command, str(CONFIG), *overrides]
    subprocess.run([*arguments, "--run-dir", str(place)], check=True, stdout=subprocess.DEVNULL)


def runs(seed: int, steps: int, overrides: list[str], folder: Path) -> list[Path]:
    """The runs of the two sides."""
    start = folder / "sft"
    verl_lite("sft", start, "logging.trackers=[]")
    common = [f"seed={seed}", f"steps={steps}", "logging.trackers=[]", *overrides]
    common += ["sft.steps=0", "model.tiny=null", f"model.path={start / 'model'}"]
    places = [folder / f"{side.replace(' ', '_')}_{seed}" for side in SIDES]
    for place, changes in zip(places, SIDES.values(), strict=True):
        verl_lite("train", place, *common, *changes)
    return places


def curve(place: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "rollout/accuracy" in line]


def accuracy(place: Path) -> dict[str, float]:
    """Held out, before and after RL."""
    measured: dict[str, float] = json.loads((place / "summary.json").read_text())["metrics"][
        "evaluation/accuracy"
    ]
    return measured


def fifths(rows: list[dict[str, Any]]) -> str:
    """The curve's means over five stretches of steps."""
    cuts = [round(len(rows) * part / 5) for part in range(6)]
    means = [
        statistics.mean(row["rollout/accuracy"] for row in rows[low:high])
        for low, high in itertools.pairwise(cuts)
    ]
    return " ".join(f"{mean:.2f}" for mean in means)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="keeps the runs")
    arguments, overrides = parser.parse_known_args()
    print(f"load {os.getloadavg()[0]:.1f}\n")
    print("| seed | side | rollout/accuracy, by fifths of the run | held out, before, after | ms per step |")
    print("|---|---|---|---|---|")
    differences: list[float] = []
    ends: list[float] = []
    more: dict[str, list[float]] = {stage: [] for stage in STAGES}
    with tempfile.TemporaryDirectory() as name:
        for seed in arguments.seeds:
            places = runs(seed, arguments.steps, overrides, (arguments.folder or Path(name)).absolute())
            for side, place in zip(SIDES, places, strict=True):
                rows, held_out = curve(place), accuracy(place)
                step_ms = 1e3 * statistics.median(row["time/step_s"] for row in rows)
                shown = f"{fifths(rows)} | {held_out['before']:.1%}, {held_out['after']:.1%} | {step_ms:.0f}"
                print(f"| {seed} | {side} | {shown} |", flush=True)
            pairs = list(zip(*map(curve, places), strict=True))
            differences.append(
                statistics.mean(ray["rollout/accuracy"] - one["rollout/accuracy"] for one, ray in pairs)
            )
            ends.append(accuracy(places[1])["after"] - accuracy(places[0])["after"])
            for stage, found in more.items():
                found += [1e3 * (ray[f"time/{stage}_s"] - one[f"time/{stage}_s"]) for one, ray in pairs]
    print(f"\ncurve: mean differences by seed {', '.join(f'{one:+.4f}' for one in differences)}")
    if len(differences) > 1:
        error = statistics.stdev(differences) / len(differences) ** 0.5
        print(f"curve: mean {statistics.mean(differences):+.4f}, standard error {error:.4f}")
    print(f"held out at the end: differences {', '.join(f'{one:+.4f}' for one in ends)}")
    medians = ", ".join(f"{stage} {statistics.median(found):+.0f}" for stage, found in more.items())
    print(f"ms per step more through Ray: {medians}")


if __name__ == "__main__":
    main()
