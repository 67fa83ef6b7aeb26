"""Break training runs on purpose, many times, and compare each with the run that nothing happened to.

    python benchmarks/fault_campaign.py --faults 200 --seed 0 --json faults.json

Every trial is a run of a very small model (one thread) in a forked process, with the transformers sampler
or, by --sampler vllm, with vLLM in it. Faults are injected into it, it is resumed until it finishes, and
then weights, metrics and rollout records must be those of the undisturbed run, each line and each record
exactly once. A process that ends by itself must end with one message of the project's own error types.
The JSON file is written after every trial, so that a campaign can be watched; an existing file
continues its campaign, after --limit-s for instance. Kinds:

    kill            kill -9 after a random time
    kill_writing    kill -9 while a checkpoint is being written
    damage          the newest checkpoint: a file cut short, a byte flipped or a file deleted
    file_limit      RLIMIT_FSIZE: writing past a size fails
    disk_full       a tmpfs too small for the run (needs mount)
    read_only       the file system turns read-only in the middle (needs mount)
    worker          kill -9 of the reward workers; the run itself must finish undisturbed
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fault_runs import Process, differences, fingerprint, make_config

from verl_lite.engine.rundir import newest_whole

KINDS = ("kill", "kill_writing", "damage", "file_limit", "disk_full", "read_only", "worker")


@dataclass
class Trial:
    """What happened to one run. `problems` must stay empty."""

    kind: str
    faults: int = 0
    starts: int = 0
    messages: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Campaign:
    """The undisturbed run, its length in seconds, and the trials."""

    def __init__(self, folder: Path, *, seed: str, faults_a_run: int, sampler: str) -> None:
        self.folder = folder
        self.faults_a_run = faults_a_run
        self.random = random.Random(seed)
        self.config = make_config(folder, sampler=sampler)
        self.length_s = 0.0
        self.reference = self._undisturbed()

    def _undisturbed(self) -> dict[str, Any]:
        for name in ("reference", "again"):  # twice: the second shows that the run is repeatable at all
            started = time.perf_counter()
            outcome = Process(self.config, self.folder / name, resume=False).outcome()
            self.length_s = time.perf_counter() - started
            print(f"undisturbed: {self.length_s:.1f} s", file=sys.stderr, flush=True)
            if outcome != "finished":
                raise SystemExit(f"the undisturbed run did not finish: {outcome}")
        first, second = fingerprint(self.folder / "reference"), fingerprint(self.folder / "again")
        if problems := list(differences(first, second)):
            raise SystemExit(f"two undisturbed runs differ: {problems}")
        return first

    def trial(self, kind: str, number: int) -> Trial:
        trial, run_dir = Trial(kind), self.folder / f"{kind}-{number}"
        getattr(self, f"_{kind}")(trial, run_dir)
        try:
            trial.problems += differences(self.reference, fingerprint(run_dir))
        except (OSError, ValueError) as error:
            trial.problems.append(f"the run did not end whole: {error}")
        _unmount(run_dir)
        shutil.rmtree(run_dir, ignore_errors=True)
        return trial

    def _start(self, trial: Trial, run_dir: Path, **options: Any) -> Process:
        """A new run, or the old one resumed; one that has nothing to resume is started anew, as it says."""
        trial.starts += 1
        resume = (run_dir / "config.yaml").is_file() and trial.starts > 1
        return Process(self.config, run_dir, resume=resume, **options)

    def _note(self, trial: Trial, run_dir: Path, outcome: str) -> bool:
        """Take down how a process ended; True when the run is finished."""
        if outcome.startswith("crashed"):
            trial.problems.append(outcome[:300])
        if outcome.startswith("refused"):
            trial.messages.append(outcome[9:])
            if "delete it and start the run anew" in outcome:  # do what the message says
                for path in run_dir.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        return outcome == "finished"

    def _finish(self, trial: Trial, run_dir: Path, **options: Any) -> None:
        for _ in range(4):  # one start may say that the run must begin anew
            if self._note(trial, run_dir, self._start(trial, run_dir, **options).outcome()):
                return
        trial.problems.append(f"not finished after {trial.starts} starts: {trial.messages[-1:]}")

    def _disturb(self, trial: Trial, run_dir: Path, wait: Callable[[Process], None]) -> None:
        process = self._start(trial, run_dir)
        wait(process)
        if process.running():
            trial.faults += 1
        process.kill()
        self._note(trial, run_dir, process.outcome())

    def _kill(self, trial: Trial, run_dir: Path) -> None:
        for _ in range(self.faults_a_run):
            self._disturb(trial, run_dir, lambda _: time.sleep(self.random.uniform(0, self.length_s)))
        self._finish(trial, run_dir)

    def _kill_writing(self, trial: Trial, run_dir: Path) -> None:
        def until_writing(process: Process) -> None:
            nth, seen = self.random.randint(1, 3), set()
            while process.running() and len(seen) < nth:
                seen |= {path.name for path in (run_dir / "checkpoints").glob(".step_*.part")}
                time.sleep(0.0005)
            time.sleep(self.random.uniform(0, 0.02))

        for _ in range(self.faults_a_run):
            self._disturb(trial, run_dir, until_writing)
        self._finish(trial, run_dir)

    def _damage(self, trial: Trial, run_dir: Path) -> None:
        checkpoints = run_dir / "checkpoints"

        def until_two(process: Process) -> None:
            have = len(list(checkpoints.glob("step_*")))
            wanted = time.monotonic() + self.length_s / 2
            while process.running() and (time.monotonic() < wanted or have < 2):
                have = len(list(checkpoints.glob("step_*")))
                time.sleep(0.005)

        for _ in range(self.faults_a_run):
            self._disturb(trial, run_dir, until_two)
            newest = max(checkpoints.glob("step_*"), key=lambda path: path.name, default=None)
            if newest is None:  # killed before it had one, or the last whole one was damaged: it begins anew
                continue
            _damage_one_file(newest, self.random)
            trial.faults += 1
            if not self._passes_over(newest):
                trial.problems.append("the damaged checkpoint counts as whole")
        self._finish(trial, run_dir)

    def _passes_over(self, damaged: Path) -> bool:
        found, passed = newest_whole(damaged.parent)
        return found != damaged and damaged in [one.path for one in passed]

    def _file_limit(self, trial: Trial, run_dir: Path) -> None:
        for _ in range(self.faults_a_run):
            limit = int(2 ** self.random.uniform(9, 17))  # the largest file has about 100 kB
            outcome = self._start(trial, run_dir, file_limit=limit).outcome()
            trial.faults += outcome != "finished"
            if self._note(trial, run_dir, outcome):
                return
        self._finish(trial, run_dir)

    def _disk_full(self, trial: Trial, run_dir: Path) -> None:
        _mount(run_dir, f"size={self.random.randint(16, 300) * 4}k")
        outcome = self._start(trial, run_dir).outcome()
        trial.faults += outcome != "finished"
        self._note(trial, run_dir, outcome)
        subprocess.run(["mount", "-o", "remount,size=64m", str(run_dir)], check=True)
        self._finish(trial, run_dir)

    def _read_only(self, trial: Trial, run_dir: Path) -> None:
        _mount(run_dir, "size=64m")
        process = self._start(trial, run_dir)
        time.sleep(self.random.uniform(0.1, 0.9) * self.length_s)
        # a file open for writing keeps the kernel from it: then the next start meets the read-only folder
        turned = subprocess.run(["mount", "-o", "remount,ro", str(run_dir)], capture_output=True)
        if turned.returncode:
            process.kill()
            process.outcome()
            subprocess.run(["mount", "-o", "remount,ro", str(run_dir)], check=True)
            self._note(trial, run_dir, self._start(trial, run_dir).outcome())
        else:
            self._note(trial, run_dir, process.outcome())
        trial.faults += 1
        subprocess.run(["mount", "-o", "remount,rw", str(run_dir)], check=True)
        self._finish(trial, run_dir)

    def _worker(self, trial: Trial, run_dir: Path) -> None:
        process = self._start(trial, run_dir, inline=False)
        for _ in range(3):
            time.sleep(self.random.uniform(0.2, 0.6) * self.length_s)
            workers = [pid for child in _children(process.pid) for pid in _children(child)]
            if workers:
                os.kill(self.random.choice(workers), signal.SIGKILL)
                trial.faults += 1
        if not self._note(trial, run_dir, process.outcome()):
            self._finish(trial, run_dir, inline=False)


def _damage_one_file(checkpoint: Path, chance: random.Random) -> None:
    path = chance.choice(sorted(path for path in checkpoint.rglob("*") if path.is_file()))
    content = path.read_bytes()
    how = chance.choice(("cut", "flip", "delete"))
    if how == "delete":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: chance.randrange(len(content))])
    else:
        at = chance.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def _mount(folder: Path, options: str) -> None:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def _unmount(folder: Path) -> None:
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount(folder: Path) -> bool:
    probe = folder / "probe"
    probe.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(probe)], capture_output=True)
    _unmount(probe)
    return done.returncode == 0


def run_campaign(folder: Path, options: argparse.Namespace) -> list[Trial]:
    """Trials of each kind in rotation until enough faults have been injected or the time is up."""
    trials: list[Trial] = []
    if options.json is not None and options.json.exists():
        trials = [Trial(**trial) for trial in json.loads(options.json.read_text())]
    seed = f"{options.seed}:{len(trials)}"
    campaign = Campaign(folder, seed=seed, faults_a_run=options.faults_a_run, sampler=options.sampler)
    wanted = options.kinds.split(",")
    kinds = [kind for kind in wanted if kind not in ("disk_full", "read_only") or can_mount(folder)]
    started = time.perf_counter()
    while sum(trial.faults for trial in trials) < options.faults:
        if time.perf_counter() - started > options.limit_s:
            break
        trials.append(campaign.trial(kinds[len(trials) % len(kinds)], len(trials)))
        done = sum(trial.faults for trial in trials)
        print(f"{done}/{options.faults} faults: {trials[-1].kind}", file=sys.stderr, flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps([vars(trial) for trial in trials], indent=1))
        for problem in trials[-1].problems:
            print(f"{trials[-1].kind}: {problem}", file=sys.stderr, flush=True)
    return trials


def table(trials: list[Trial]) -> str:
    lines = ["| fault | injected | runs | starts | clear refusals | problems |", "|---|---|---|---|---|---|"]
    for kind in (*KINDS, "all"):
        chosen = [trial for trial in trials if kind in (trial.kind, "all")]
        numbers = Counter(
            faults=sum(t.faults for t in chosen),
            starts=sum(t.starts for t in chosen),
            messages=sum(len(t.messages) for t in chosen),
            problems=sum(len(t.problems) for t in chosen),
        )
        lines.append(
            f"| {kind} | {numbers['faults']} | {len(chosen)} | {numbers['starts']} | {numbers['messages']} "
            f"| {numbers['problems']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--faults-a-run", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampler", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--limit-s", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trials = run_campaign(Path(folder), options)
    print(table(trials))
    print(f"\n{time.perf_counter() - started:.0f} s, load {os.getloadavg()[0]:.1f}")
    for message in sorted({m.split(" /tmp")[0][:100] for trial in trials for m in trial.messages}):
        print(f"  message: {message} ...")
    sys.exit(any(trial.problems for trial in trials))


if __name__ == "__main__":
    main()
