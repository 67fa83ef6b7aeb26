"""Whole training runs on a local Ray cluster of several nodes, with processes killed under them.

    python benchmarks/kill_cluster.py [--kills 20] [--kinds engine reward rank node] [--out RESULT.md]
    python benchmarks/kill_cluster.py --nodes 0 --kinds engine reward rank       on a Ray of the run's own

Each kill is SIGKILL of a random process of the kind (for "node": of all processes of a node, which another
one then replaces). A kill is recovered from when the run writes metrics of two more steps within the
deadline. At the end: every step is in metrics.jsonl once, no row lacks its reward, and once the run is over
no actor is left. Exit code 1 otherwise.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart.yaml"
ACTORS = {"engine": "EngineActor", "reward": "_HostActor", "rank": "RankActor"}
RECOVERED_AFTER_STEPS = 2
DEADLINE_S = 420.0
OVERRIDES = [
    "steps=100000", "sft.steps=20", "data.held_out=null", "checkpoints.every_steps=2",
    "logging.rollouts_every_steps=1", "logging.trackers=[]", "rollout.num_prompts=8", "rollout.num_samples=4",
    "learner.num_ranks=2", "rollout.num_engines=2", "cluster.rewards.count=1", "cluster.max_restarts=1000",
    "cluster.start_timeout_s=400", "cluster.call_timeout_s=120",
    "rewards.shape={use: regex, weight: 0.0, options: {pattern: boxed}}",  # one in a worker process too
]  # fmt: skip


NODE_TRIES = 5  # Ray gives a node 30 s to start, which on a busy machine is not always enough


def add_node(cluster: Any, **options: Any) -> None:
    for left in reversed(range(NODE_TRIES)):
        try:
            cluster.add_node(**options)
            return
        except Exception as error:
            if not left:
                raise
            print(f"a node did not start, once more: {error}", file=sys.stderr, flush=True)


@contextmanager
def cluster_of_nodes(count: int) -> Iterator[Any]:
    """A head and `count` nodes that the actors of the run are spread over; None for no nodes."""
    if not count:
        yield None
        return
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=False)
    try:
        add_node(cluster, num_cpus=2, include_dashboard=False)
        for _ in range(count):
            add_node(cluster, num_cpus=3)
        yield cluster
    finally:
        cluster.shutdown()


def processes() -> dict[int, tuple[int, str]]:
    """Process id -> (parent, command) of everything that runs."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            command = (
                Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
        found[int(entry)] = (parent, command)
    return found


def actors(kind: str, root: int) -> list[int]:
    """The processes of the run's actors of a kind; `root` is what started Ray."""
    there = processes()
    raylets = {pid for pid, (_, command) in there.items() if "/raylet/raylet " in command}
    ours = {pid for pid in raylets if _is_below(pid, root, there)}
    named = f"ray::{ACTORS[kind]}"
    return [pid for pid, (parent, command) in there.items() if parent in ours and command.startswith(named)]


def _is_below(pid: int, root: int, there: dict[int, tuple[int, str]]) -> bool:
    while pid in there and pid != root:
        pid = there[pid][0]
    return pid == root


def kill(kind: str, cluster: Any, root: int, generator: random.Random) -> str:
    if kind == "node":
        node = generator.choice(cluster.list_all_nodes()[1:])
        cluster.remove_node(node, allow_graceful=False)
        add_node(cluster, num_cpus=3)
        return "a node"
    while not (found := actors(kind, root)):  # still being replaced
        time.sleep(0.2)
    chosen = generator.choice(found)
    os.kill(chosen, signal.SIGKILL)
    return f"process {chosen}"


def lines(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    if not path.is_file():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def last_step(run: Path) -> int:
    return max((line["step"] for line in lines(run) if "reward/mean" in line), default=0)


def wait_for_steps(run: Path, process: subprocess.Popen[bytes], *, after: float, count: int) -> float | None:
    """Seconds from the moment `after` until `count` more steps were written; None past the deadline.

    A run that goes back to a checkpoint drops lines and writes them again: those count.
    """
    written, before = 0, len(lines(run))
    while time.monotonic() - after < DEADLINE_S and process.poll() is None:
        now = len(lines(run))
        written, before = written + max(now - before, 0), now
        if written >= count:
            return time.monotonic() - after
        time.sleep(0.2)
    return None


def check_run(run: Path) -> list[str]:
    """What is wrong with the records of a run; empty when nothing is."""
    wrong = []
    steps = Counter(line["step"] for line in lines(run) if "reward/mean" in line)
    last = max(steps, default=0)
    if set(steps) != set(range(1, last + 1)) or set(steps.values()) != {1}:
        wrong.append(f"steps are not each there once: {sorted(steps.items())}")
    for line in lines(run):
        bad = {name: value for name, value in line.items() if name.endswith("/errors") and value}
        if bad:
            wrong.append(f"step {line['step']}: {bad}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", default=["engine", "reward", "rank", "node"])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments, overrides = parser.parse_known_args()
    generator = random.Random(arguments.seed)
    rows, wrong = [], []
    with tempfile.TemporaryDirectory() as folder, cluster_of_nodes(arguments.nodes) as cluster:
        run = Path(folder) / "run"
        command = [str(Path(sys.executable).parent / "verl-lite"), "train", str(QUICKSTART), *OVERRIDES]
        if cluster is not None:
            command.append(f"cluster.address={cluster.address}")
        command += [*overrides, "--run-dir", str(run)]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        root = process.pid if cluster is None else os.getpid()
        try:
            if wait_for_steps(run, process, after=time.monotonic(), count=2) is None:
                sys.exit("the run did not begin:\n" + (Path(folder) / "log").read_text()[-4000:])
            for number in range(arguments.kills):
                kind = arguments.kinds[number % len(arguments.kinds)]
                time.sleep(generator.uniform(0.0, 3.0))
                before, at = last_step(run), time.monotonic()
                what = kill(kind, cluster, root, generator)
                seconds = wait_for_steps(run, process, after=at, count=RECOVERED_AFTER_STEPS)
                rows.append((number + 1, kind, before, seconds))
                shown = "NOT recovered" if seconds is None else f"{seconds:.1f} s"
                print(f"| {number + 1} | {kind} | {before} | {shown} | ({what})", flush=True)
                if seconds is None:
                    print((Path(folder) / "log").read_text()[-4000:], flush=True)
                    break
            process.send_signal(signal.SIGINT)
            try:
                process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                wrong.append("the run did not stop after Ctrl-C")
            wrong += check_run(run)
            time.sleep(3.0)
            left = [pid for kind in ACTORS for pid in actors(kind, os.getpid())]
            if left:
                wrong.append(f"{len(left)} actors are left after the run")
        finally:
            process.kill()
            process.wait()
    recovered = [row for row in rows if row[3] is not None]
    report = summary(rows, len(recovered), wrong)
    print(report)
    if arguments.out is not None:
        arguments.out.write_text(report, encoding="utf-8")
    sys.exit(int(len(recovered) < arguments.kills or bool(wrong)))


def summary(rows: list[tuple[int, str, int, float | None]], recovered: int, wrong: list[str]) -> str:
    text = [
        f"{recovered} of {len(rows)} recoveries",
        "",
        "| killed | times | recovered | median s | longest s |",
        "|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(row[1] for row in rows):
        times = sorted(row[3] for row in rows if row[1] == kind and row[3] is not None)
        count = sum(row[1] == kind for row in rows)
        spread = f"{times[len(times) // 2]:.1f} | {times[-1]:.1f}" if times else "- | -"
        text.append(f"| {kind} | {count} | {len(times)} | {spread} |")
    text += ["", *(f"wrong: {one}" for one in wrong)]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()
