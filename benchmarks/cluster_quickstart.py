"""The quickstart in one process and with 2 learner ranks + 2 engines through Ray: curve and time of a step.

    python benchmarks/cluster_quickstart.py [--seeds 0 1 2] [--steps 20] [key.path=value ...]

Both sides of a seed have the same data and the same sampling seeds. The curves are compared by the mean
difference of rollout/accuracy over the steps of a seed, against its spread over the seeds, and by held-out
accuracy at the end. The overhead of a step is the median of what time/step_s has more; where there are fewer
cores than processes it contains what they take from each other.
"""

import argparse
import json
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


def run(side: str, seed: int, steps: int, overrides: list[str], folder: Path) -> Path:
    place = folder / f"{side.replace(' ', '_')}_{seed}"
    command = [str(Path(sys.executable).parent / "verl-lite"), "train", str(CONFIG), f"seed={seed}"]
    command += [f"steps={steps}", "logging.trackers=[]", *SIDES[side], *overrides, "--run-dir", str(place)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return place


def curve(place: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "rollout/accuracy" in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=40)
    arguments, overrides = parser.parse_known_args()
    print("| seed | held out: one process | through Ray | mean difference of the curve | ms a step more |")
    print("|---|---|---|---|---|")
    differences, ends, more = [], [], []
    with tempfile.TemporaryDirectory() as name:
        for seed in arguments.seeds:
            places = {side: run(side, seed, arguments.steps, overrides, Path(name)) for side in SIDES}
            one, ray = (curve(places[side]) for side in SIDES)
            accuracy = [
                json.loads((places[side] / "summary.json").read_text())["metrics"]["evaluation/accuracy"][
                    "after"
                ]
                for side in SIDES
            ]
            pairs = list(zip(one, ray, strict=True))
            differences.append(
                statistics.mean(b["rollout/accuracy"] - a["rollout/accuracy"] for a, b in pairs)
            )
            ends.append(accuracy[1] - accuracy[0])
            more.append(1e3 * statistics.median(b["time/step_s"] - a["time/step_s"] for a, b in pairs))
            shown = f"{accuracy[0]:.1%} | {accuracy[1]:.1%} | {differences[-1]:+.4f} | {more[-1]:.0f}"
            print(f"| {seed} | {shown} |", flush=True)
    spread = statistics.stdev(differences) if len(differences) > 1 else float("nan")
    print(f"curve: mean difference {statistics.mean(differences):+.4f}, deviation over seeds {spread:.4f}")
    print(f"held out: mean difference {statistics.mean(ends):+.4f}")
    print(f"a step takes {statistics.median(more):.0f} ms more")


if __name__ == "__main__":
    main()
