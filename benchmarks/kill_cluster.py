"""Whole training runs on a local Ray cluster of several nodes, with processes killed under them.

    python benchmarks/kill_cluster.py [--kills 20] [--kinds engine reward rank node]
    python benchmarks/kill_cluster.py --nodes 0 --kinds engine reward rank       on a Ray that the run starts
    python benchmarks/kill_cluster.py --record KILLS.jsonl --seconds 240   kills that begin in that time

Each kill is SIGKILL of a random process of the kind (for "node": of all processes of a node, which another
one then replaces). A kill is recovered from when the run writes metrics of two more steps within the
deadline. At the end, after a Ctrl-C: every step is in metrics.jsonl once, no row lacks its reward, and
nothing that the run started is left. Exit code 1 otherwise. With `--record` kills are kept as lines, and the
next call, on a new cluster and a new run, continues after the last.
"""

import argparse
import json
import math
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
DEADLINE_S = 240.0
GONE_S = 3.0  # after its end
OVERRIDES = [
    "steps=100000", "sft.steps=5", "data.held_out=null", "checkpoints.every_steps=2",
    "logging.rollouts_every_steps=0", "logging.trackers=[]", "rollout.num_prompts=8", "rollout.num_samples=4",
    "learner.num_ranks=2", "rollout.num_engines=2", "cluster.rewards.count=1", "cluster.max_restarts=1000",
    "cluster.start_timeout_s=400", "cluster.call_timeout_s=120",
    "rewards.shape={use: regex, weight: 0.0, options: {pattern: boxed}}",  # one in a worker process too
]  # fmt: skip
os.environ.setdefault("RAY_worker_niceness", "0")  # as in runs with a Ray of their own
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
    until = time.monotonic() + DEADLINE_S
    while not (found := actors(kind, root)):  # still being replaced
        if time.monotonic() > until:
            sys.exit(f"no {kind} is there to kill")
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


def below(root: int) -> list[int]:
    there = processes()
    return [pid for pid in there if pid != root and _is_below(pid, root, there)]


@contextmanager
def a_run(folder: Path, cluster: Any, overrides: list[str]) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """The run's folder and its process; what it prints is in `folder`/log."""
    run = folder / "run"
    command = [str(Path(sys.executable).parent / "verl-lite"), "train", str(QUICKSTART), *OVERRIDES]
    if cluster is not None:
        command.append(f"cluster.address={cluster.address}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *overrides, "--run-dir", str(run)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield run, process
    finally:
        process.kill()
        process.wait()


def stop(run: Path, process: subprocess.Popen[bytes], watched: list[int]) -> list[str]:
    """End the run by Ctrl-C; what is wrong then. `watched` are processes that must go with it."""
    wrong = []
    process.send_signal(signal.SIGINT)
    try:
        process.wait(DEADLINE_S)
    except subprocess.TimeoutExpired:
        wrong.append("the run did not stop after Ctrl-C")
    time.sleep(GONE_S)
    there = processes()
    if left := [there[pid][1] for pid in watched if pid in there]:
        wrong.append(f"left after the run: {left}")
    return wrong + check_run(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", default=["engine", "reward", "rank", "node"])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--seconds", type=float, default=math.inf, help="no kill begins later in this call")
    arguments, overrides = parser.parse_known_args()
    rows: list[dict[str, Any]] = []
    if arguments.record is not None and arguments.record.is_file():
        rows = [json.loads(line) for line in arguments.record.read_text().splitlines()]
    wrong: list[str] = []
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as name,
        cluster_of_nodes(arguments.nodes) as cluster,
        a_run(Path(name), cluster, overrides) as (run, process),
    ):
        root = process.pid if cluster is None else os.getpid()
        began = wait_for_steps(run, process, after=time.monotonic(), count=2)
        if began is None:
            sys.exit("the run did not begin:\n" + (Path(name) / "log").read_text()[-4000:])
        print(f"the run began after {began:.0f} s; load {os.getloadavg()[0]:.1f}", flush=True)
        for number in range(len(rows), arguments.kills):
            if time.monotonic() - started > arguments.seconds:
                break
            generator = random.Random(number)
            kind = arguments.kinds[number % len(arguments.kinds)]
            time.sleep(generator.uniform(0.0, 3.0))
            before, at = last_step(run), time.monotonic()
            what = kill(kind, cluster, root, generator)
            seconds = wait_for_steps(run, process, after=at, count=RECOVERED_AFTER_STEPS)
            rows.append({"kind": kind, "step": before, "seconds": seconds})
            if arguments.record is not None:
                with arguments.record.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
            shown = "NOT recovered" if seconds is None else f"{seconds:.1f} s"
            print(f"| {number + 1} | {kind} | {before} | {shown} | ({what})", flush=True)
            if seconds is None:
                print((Path(name) / "log").read_text()[-4000:], flush=True)
                break
        watched = [pid for kind in ACTORS for pid in actors(kind, root)] if cluster else below(root)
        wrong += stop(run, process, watched)
    print(summary(rows, wrong))
    sys.exit(int(any(row["seconds"] is None for row in rows) or bool(wrong)))


def summary(rows: list[dict[str, Any]], wrong: list[str]) -> str:
    recovered = sum(row["seconds"] is not None for row in rows)
    text = [
        f"{recovered} of {len(rows)} recoveries",
        "",
        "| killed | times | recovered | median s | longest s |",
        "|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row["seconds"] for row in rows if row["kind"] == kind]
        times = sorted(seconds for seconds in of_kind if seconds is not None)
        spread = f"{times[len(times) // 2]:.1f} | {times[-1]:.1f}" if times else "- | -"
        text.append(f"| {kind} | {len(of_kind)} | {len(times)} | {spread} |")
    return "\n".join([*text, "", *(f"wrong: {one}" for one in wrong)])


if __name__ == "__main__":
    main()
