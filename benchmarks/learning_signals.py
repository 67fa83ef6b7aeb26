"""Distillation beside GRPO, and a curriculum beside none, on the quickstart's task.

    verl-lite train examples/quickstart.yaml --run-dir runs/quickstart
    python benchmarks/learning_signals.py distill --quickstart runs/quickstart [--seeds 0 1 2]
    python benchmarks/learning_signals.py curriculum --quickstart runs/quickstart [--seeds 0 1 2]

distill     examples/distill.yaml after its SFT, three times per seed: the teacher alone, rewards alone, both
curriculum  the quickstart after its SFT, trained on additions of which a third has no carry (it solves
            them), a third has four digits (it never does) and a third is two digits with a carry, which is
            what the held-out rows ask: with and without data.curriculum.gate

Every run of a kind begins with the same weights. Runs already in --out are not repeated. Held-out accuracy
by step goes to --out as one JSON per kind: every run, and the mean over the seeds by arm.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import yaml

ROOT = Path(__file__).parent.parent
AT = 0.9
ROWS_PER_KIND = 32  # so that prompts come again: a gate knows a prompt from its first visit, 12 steps for all
Curves = dict[str, list[tuple[int, float]]]
CURRICULUM = {"plain": [], "gate": ["data.curriculum={gate: {rest_steps: 30}}"]}


def additions(count: int, kind: str, rng: random.Random) -> list[dict[str, str]]:
    """`count` different additions: "easy" without a carry, "hard" of four digits, or with a "carry"."""
    found: dict[str, dict[str, str]] = {}
    low, high = (1000, 9999) if kind == "hard" else (10, 99)
    while len(found) < count:
        a, b = rng.randint(low, high), rng.randint(low, high)
        if kind == "hard" or (a % 10 + b % 10 > 9) == (kind == "carry"):
            found[f"{a}+{b}"] = {"question": f"{a}+{b}=", "reference": str(a + b)}
    return list(found.values())


def curriculum_config(folder: Path, model: Path) -> Path:
    rng = random.Random(0)
    carry = additions(ROWS_PER_KIND + 300, "carry", rng)
    others = [row for kind in ("easy", "hard") for row in additions(ROWS_PER_KIND, kind, rng)]
    files = {"train": [*carry[:ROWS_PER_KIND], *others], "held_out": carry[ROWS_PER_KIND:]}
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    tree |= {
        "name": "curriculum",
        "model": {"path": str(model)},
        "sft": {},
        "data": {name: {"path": str((folder / f"{name}.jsonl").absolute())} for name in files},
        "steps": 80,
        "rollout": {**tree["rollout"], "num_prompts": 8},  # of which about 3 teach, without a gate
        "learner": {"optimizer": {"learning_rate": 3e-6, "schedule": "constant"}},
        "evaluation": {"every_steps": 4},
        "checkpoints": {"every_steps": 0},
    }
    path = folder / "curriculum.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def distillation_arms(teacher: Path) -> dict[str, list[str]]:
    judged = [f"distillation.teachers.quickstart.model={teacher}"]
    rewarded = "algorithm.advantage=grpo"
    return {
        "distillation": judged,
        "GRPO": ["distillation.teachers={}", rewarded],
        "both": [*judged, rewarded],
    }


def train(config: Path, changes: list[str], run_dir: Path) -> None:
    """A run, unless it is there."""
    command = [str(Path(sys.executable).parent / "verl-lite"), "train", str(config), *changes]
    if not (run_dir / "summary.json").exists():
        subprocess.run(
            [*command, "logging.trackers=[]", "--run-dir", str(run_dir)],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def accuracy_by_step(run_dir: Path) -> list[tuple[int, float]]:
    """Held-out accuracy by step."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run_dir / "summary.json").read_text())
    ends = summary["metrics"]["evaluation/accuracy"]
    measured = [(row["step"], row["evaluation/accuracy"]) for row in rows if "evaluation/accuracy" in row]
    return [(0, ends["before"]), *measured, (summary["steps"], ends["after"])]


def means(curves: Curves, arms: Iterable[str]) -> Curves:
    """The mean of each arm's curves over its seeds, by the arm's name."""
    found: Curves = {}
    for arm in arms:
        several = [curve for name, curve in curves.items() if name.rpartition("-")[0] == arm]
        found[arm] = [(points[0][0], fmean(y for _, y in points)) for points in zip(*several, strict=True)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=["distill", "curriculum"])
    parser.add_argument("--quickstart", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/learning_signals"))
    arguments, overrides = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    quickstart = arguments.quickstart.absolute()
    if arguments.kind == "distill":
        config, student = ROOT / "examples" / "distill.yaml", arguments.out / "student"
        arms = distillation_arms(quickstart / "checkpoints" / "step_000040" / "policy")
        train(config, ["steps=0", "evaluation.every_steps=0", "distillation.teachers={}"], student)
        overrides += [f"model={{path: {student.absolute() / 'model'}}}", "sft.steps=0"]
    else:
        config, arms = curriculum_config(arguments.out, quickstart / "model"), CURRICULUM
    curves: Curves = {}
    print(f"| seed | arm | before | after | first at {AT:.0%} |\n|---|---|---|---|---|")
    for seed in arguments.seeds:
        for arm, changes in arms.items():
            run_dir = arguments.out / f"{arguments.kind}_{arm}_{seed}"
            train(config, [f"seed={seed}", *changes, *overrides], run_dir)
            curve = curves[f"{arm}-{seed}"] = accuracy_by_step(run_dir)
            first = next((step for step, accuracy in curve if accuracy >= AT), None)
            print(f"| {seed} | {arm} | {curve[0][1]:.1%} | {curve[-1][1]:.1%} | {first} |", flush=True)
    result = arguments.out / f"{arguments.kind}.json"
    result.write_text(json.dumps({**curves, **means(curves, arms)}))


if __name__ == "__main__":
    main()
