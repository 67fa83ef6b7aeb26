"""`verl-lite score` on a million short rollouts, shuffled, from its cache, and on 100 from a cold start.

    python benchmarks/score_million.py [--rows 1000000] [--repeats 3]

Three components (exact, format, length) on generated sums. On a machine with other work the CPU time
says more than the wall time: two cores of its own take half of it, and a second to start. Memory is the
largest resident set of any one process of the command. Wanted on 2 cores: 50,000 rollouts/s, under 1 GB,
the same file shuffled in at most 1.3 times the time and under 1 GB, the second run at least 10 times
faster, and 100 rollouts from a cold start in under 1.5 s without torch.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REWARDS = """
rewards:
  correct: {use: exact, weight: 1.0}
  shape: {use: format, weight: 0.2, options: {pattern: boxed}}
  brevity: {use: length, weight: 0.1, options: {unit: words, target: 20}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rewards.yaml").write_text(REWARDS)
        write_rollouts(folder / "many.jsonl", arguments.rows)
        write_rollouts(folder / "few.jsonl", 100)
        shuffle(folder / "many.jsonl", folder / "shuffled.jsonl")
        fresh, cpu_s, shuffled, shuffled_cpu_s = [], [], [], []
        for _ in range(arguments.repeats):
            for name, seconds, cpu in (
                ("many.jsonl", fresh, cpu_s),
                ("shuffled.jsonl", shuffled, shuffled_cpu_s),
            ):
                before = cpu_of_children()
                seconds.append(score(folder, name, "--no-cache"))
                cpu.append(cpu_of_children() - before)
        score(folder, "many.jsonl", "--cache", str(folder / "cache.sqlite"))
        again = [
            score(folder, "many.jsonl", "--cache", str(folder / "cache.sqlite"))
            for _ in range(arguments.repeats)
        ]
        cold = [score(folder, "few.jsonl", "--no-cache") for _ in range(arguments.repeats)]
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    first, second = statistics.median(fresh), statistics.median(again)
    cpu = statistics.median(cpu_s)
    print(f"{arguments.rows:,} rollouts       {first:.1f} s, {arguments.rows / first:,.0f} rollouts/s")
    print(f"its CPU, all processes   {cpu:.1f} s, {cpu / arguments.rows * 1e6:.1f} us per rollout")
    mixed = statistics.median(shuffled)
    mixed_cpu = statistics.median(shuffled_cpu_s)
    print(
        f"the same shuffled        {mixed:.1f} s, {mixed / first:.2f} times; CPU {mixed_cpu / cpu:.2f} times"
    )
    print(f"the same from cache      {second:.2f} s, {first / second:.0f} times faster")
    print(f"100 from a cold start    {statistics.median(cold):.2f} s")
    print(f"largest process          {peak_mb:,.0f} MB")


def cpu_of_children() -> float:
    """Seconds of CPU of the commands that ended, with the processes they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_rollouts(path: Path, num_rows: int) -> None:
    rng = random.Random(0)
    with path.open("w") as file:
        for index in range(num_rows):
            a, b = rng.randrange(100), rng.randrange(100)
            answer = a + b if rng.random() < 0.6 else rng.randrange(200)
            row = {
                "group": f"g{index // 4}",
                "prompt": f"{a}+{b}=",
                "completion": f"<think>add</think> \\boxed{{{answer}}}",
                "reference": str(a + b),
            }
            file.write(json.dumps(row) + "\n")


def shuffle(source: Path, target: Path) -> None:
    """The lines of `source` in a random order: every group is torn."""
    lines = source.read_text().splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    target.write_text("".join(lines))


def score(folder: Path, name: str, *options: str) -> float:
    """Seconds of the whole command, process start included."""
    command = [
        str(Path(sys.executable).with_name("verl-lite")),
        "score",
        name,
        "-c",
        "rewards.yaml",
        *options,
    ]
    started = time.perf_counter()
    done = subprocess.run([*command, "--json"], cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr}")
    summary = json.loads(done.stdout)
    assert summary["num_bad_rows"] == 0, summary
    return seconds


if __name__ == "__main__":
    main()
