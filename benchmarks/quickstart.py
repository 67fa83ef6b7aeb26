"""The quickstart for several seeds: held-out accuracy after SFT and after GRPO, and the time it took.

    python benchmarks/quickstart.py [--seeds 0 1 2] [key.path=value ...]

Exit code 1 when a seed is above 65% after SFT, below 95% after GRPO, or took more than 240 s.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).parent.parent / "examples" / "quickstart.yaml"
MOST_AFTER_SFT, LEAST_AFTER_GRPO, MOST_SECONDS = 0.65, 0.95, 240.0


def run_seed(seed: int, overrides: list[str], folder: Path) -> tuple[float, float, float]:
    """(accuracy after SFT, accuracy after GRPO, wall seconds of the whole command)."""
    run_dir = folder / f"seed_{seed}"
    command = [str(Path(sys.executable).parent / "verl-lite"), "train", str(CONFIG), f"seed={seed}"]
    started = time.perf_counter()
    subprocess.run(
        [*command, *overrides, "--run-dir", str(run_dir)], check=True, stdout=subprocess.DEVNULL, cwd=folder
    )
    seconds = time.perf_counter() - started
    accuracy = json.loads((run_dir / "summary.json").read_text())["metrics"]["evaluation/accuracy"]
    return accuracy["before"], accuracy["after"], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments, overrides = parser.parse_known_args()
    failed = False
    print("| seed | after SFT | after GRPO | seconds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            before, after, seconds = run_seed(seed, overrides, Path(folder))
            print(f"| {seed} | {before:.1%} | {after:.1%} | {seconds:.0f} |", flush=True)
            failed |= before > MOST_AFTER_SFT or after < LEAST_AFTER_GRPO or seconds > MOST_SECONDS
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
