"""Run the stages of stages.py one after the other, each in a process with a time limit; see README.md."""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REHEARSAL_SLACK = 4  # a CPU that others use too
# in this order, most important first; seconds on a GPU, and what earlier stages left of theirs
LIMITS = {
    "versions": 30,  # the first import of torch from a cold disk
    "tests": 120,
    "learner": 90,
    "grpo_small": 90,
    "quickstart": 45,
    "memory": 20,
    "grpo_large": 45,
    "trl": 20,
    "smollm2": 20,
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`status` is ok, skipped, failed or timed out; `reason` says why in one line."""

    stage: str
    status: str
    seconds: float
    reason: str = ""


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the stage ends with the script
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--bundle", type=Path, help="folder of parts (part-*) of a tar.xz with packages")
    parser.add_argument("--smollm2", type=Path, help="SmolLM2-135M-Instruct as a .gguf file")
    parser.add_argument("--only", nargs="+", choices=LIMITS, default=list(LIMITS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    paths = [unpack(args.bundle, args.out.absolute() / "site")] if args.bundle else []
    paths += project(args.out.absolute() / "project")
    before = filter(None, [os.environ.get("PYTHONPATH")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, paths), *before])}
    if args.rehearse:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "VERL_LITE_REHEARSE_GPU": "1", "OMP_NUM_THREADS": "1"}
    options = ["--rehearse"] if args.rehearse else []
    options += ["--smollm2", str(args.smollm2.absolute())] if args.smollm2 else []
    slack = REHEARSAL_SLACK if args.rehearse else 1
    due, outcomes = time.monotonic(), list[Outcome]()
    for stage in (name for name in LIMITS if name in args.only):
        due += slack * LIMITS[stage]  # with what earlier stages left of theirs
        limit_s = due - time.monotonic()
        outcomes.append(run(stage, args.out.absolute(), options, environment, limit_s=limit_s))
        print(line(outcomes[-1]), flush=True)
        write(args.out / "summary.json", [asdict(one) for one in outcomes])
    return int(any(one.status in ("failed", "timed out") for one in outcomes))


def project(folder: Path) -> list[Path]:
    """Where the project is not installed: the checkout's source roots, and metadata with its entry points."""
    if importlib.util.find_spec("verl_lite") and [*importlib.metadata.distributions(name="verl-lite")]:
        return []
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"console_scripts": settings["scripts"], **settings["entry-points"]}
    info = folder / f"verl_lite-{settings['version']}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    known = f"Metadata-Version: 2.1\nName: verl-lite\nVersion: {settings['version']}\n"
    (info / "METADATA").write_text(known)
    lines = [
        f"[{name}]\n" + "".join(f"{at} = {of}\n" for at, of in group.items())
        for name, group in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return [folder, *(ROOT / part for part in ("sandbox", "verifiers", "plugins", "engine"))]


def unpack(parts: Path, site: Path) -> Path:
    """Put the parts together, as `cat part-* | xz -dc | tar -x` does; once per folder."""
    found = sorted(parts.glob("part-*"))
    if not found:
        raise SystemExit(f"run_all: --bundle {parts} has no files named part-*")
    if not site.is_dir():
        site.mkdir(parents=True)
        with subprocess.Popen(["tar", "-C", str(site), "-xJ"], stdin=subprocess.PIPE) as tar:
            assert tar.stdin is not None
            for part in found:
                tar.stdin.write(part.read_bytes())
            tar.stdin.close()
        if tar.returncode:
            raise SystemExit(f"run_all: tar could not unpack the parts in {parts}")
    return site


def run(
    stage: str, out: Path, options: Sequence[str], environment: dict[str, str], *, limit_s: float
) -> Outcome:
    """One stage. It writes `out/STAGE.json` itself; its output is `out/STAGE.log`."""
    result, log = out / f"{stage}.json", out / f"{stage}.log"
    result.unlink(missing_ok=True)
    if limit_s < 5:
        return Outcome(stage=stage, status="skipped", seconds=0.0, reason="no time left")
    command = [sys.executable, str(HERE / "stages.py"), stage, "--out", str(result), *options]
    started = time.monotonic()
    with log.open("wb") as sink:
        # in a session of its own: engines and workers end with it
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_session(process)
    seconds = round(time.monotonic() - started, 1)
    if code is None:
        kept = "; what it had written is kept" if result.exists() else ""
        return Outcome(
            stage=stage, status="timed out", seconds=seconds, reason=f"after {limit_s:.0f} s{kept}"
        )
    found = json.loads(result.read_text()) if result.exists() else {}
    if code == 0 and "skipped" in found:
        return Outcome(stage=stage, status="skipped", seconds=seconds, reason=found["skipped"])
    if code:
        return Outcome(stage=stage, status="failed", seconds=seconds, reason=last_line(log))
    return Outcome(stage=stage, status="ok", seconds=seconds)


def end_session(process: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of the stage's session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"


def line(outcome: Outcome) -> str:
    reason = f"  {outcome.reason}" if outcome.reason else ""
    return f"{outcome.stage:12} {outcome.status:10} {outcome.seconds:6.1f} s{reason}"


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
