"""Distillation beside GRPO, and a curriculum beside none, on the quickstart's task.

    verl-lite train examples/quickstart.yaml --run-dir runs/quickstart
    python benchmarks/learning_signals.py distill --quickstart runs/quickstart [--seeds 0 1 2]
    python benchmarks/learning_signals.py curriculum [--seeds 0 1 2]

distill     examples/distill.yaml three times per seed: the teacher alone, rewards alone, both
curriculum  the quickstart after its own SFT, trained on additions of which a third has no carry (it solves
            them), a third has four digits (it never does) and a third is two digits with a carry, which is
            what the held-out rows ask: with and without data.curriculum.gate

Held-out accuracy every 2 or 5 steps goes to --out as one JSON per kind.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
AT = 0.9
DISTILL = {
    "distillation": [],
    "GRPO": ["distillation.weight=0", "algorithm.advantage=grpo"],
    "both": ["algorithm.advantage=grpo"],
}
CURRICULUM = {"plain": [], "gate": ["data.curriculum={gate: {rest_steps: 20}}"]}


def additions(count: int, kind: str, rng: random.Random) -> list[dict[str, str]]:
    """`count` different additions: "easy" without a carry, "hard" of four digits, or with a "carry"."""
    found: dict[str, dict[str, str]] = {}
    low, high = (1000, 9999) if kind == "hard" else (10, 99)
    while len(found) < count:
        a, b = rng.randint(low, high), rng.randint(low, high)
        if kind == "hard" or (a % 10 + b % 10 > 9) == (kind == "carry"):
            found[f"{a}+{b}"] = {"question": f"{a}+{b}=", "reference": str(a + b)}
    return list(found.values())


def curriculum_config(folder: Path) -> Path:
    rng = random.Random(0)
    carry = additions(1200, "carry", rng)
    train = [*carry[:900], *additions(900, "easy", rng), *additions(900, "hard", rng)]
    files = {"train": train, "held_out": carry[900:]}
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    tree |= {
        "name": "curriculum",
        "sft": {**tree["sft"], "data": tree["data"]["train"]},
        "data": {name: {"path": str((folder / f"{name}.jsonl").absolute())} for name in files},
        "evaluation": {"every_steps": 2},
        "checkpoints": {"every_steps": 0},
    }
    path = folder / "curriculum.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def run(config: Path, changes: list[str], run_dir: Path) -> list[tuple[int, float]]:
    """Held-out accuracy by step."""
    command = [str(Path(sys.executable).parent / "verl-lite"), "train", str(config), *changes]
    subprocess.run(
        [*command, "logging.trackers=[]", "--run-dir", str(run_dir)], check=True, stdout=subprocess.DEVNULL
    )
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run_dir / "summary.json").read_text())
    ends = summary["metrics"]["evaluation/accuracy"]
    measured = [(row["step"], row["evaluation/accuracy"]) for row in rows if "evaluation/accuracy" in row]
    return [(0, ends["before"]), *measured, (summary["steps"], ends["after"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=["distill", "curriculum"])
    parser.add_argument("--quickstart", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/learning_signals"))
    arguments, overrides = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    teacher = (arguments.quickstart / "checkpoints" / "step_000040" / "policy").absolute()
    if arguments.kind == "distill":
        config, arms = ROOT / "examples" / "distill.yaml", DISTILL
        overrides = [f"distillation.teachers.quickstart.model={teacher}", *overrides]
    else:
        config, arms = curriculum_config(arguments.out), CURRICULUM
    result = arguments.out / f"{arguments.kind}.json"
    curves = json.loads(result.read_text()) if result.exists() else {}
    print(f"| seed | arm | before | after | first at {AT:.0%} |\n|---|---|---|---|---|")
    for seed in arguments.seeds:
        for arm, changes in arms.items():
            key = f"{arm}-{seed}"
            run_dir = arguments.out / f"{arguments.kind}_{arm}_{seed}"
            curves[key] = run(config, [f"seed={seed}", *changes, *overrides], run_dir)
            result.write_text(json.dumps(curves))
            first = next((step for step, accuracy in curves[key] if accuracy >= AT), None)
            print(
                f"| {seed} | {arm} | {curves[key][0][1]:.1%} | {curves[key][-1][1]:.1%} | {first} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
