"""What the core costs to install and import: seconds and megabytes, without torch.

    python benchmarks/core_install.py

Builds the wheel, installs it with uv into an empty environment (once with an empty cache, so with
every download, and once with a filled one), adds up what lies there and times imports in fresh
processes. Needs the package registry, hatchling and uv (`make setup` brings both).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = [sys.executable, "-m", "uv"]
HEAVY = ("torch", "vllm", "transformers", "sympy", "pyarrow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=11, help="processes an import is timed in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(Path(folder), arguments.repeats)


def report(folder: Path, repeats: int) -> None:
    wheel = build_wheel(folder)
    print(f"wheel                        {wheel.stat().st_size / 2**20:7.2f} MiB")
    for what in ("empty", "filled"):
        seconds = install(wheel, folder / f"venv-{what}", folder / "cache")
        print(f"install, cache {what:<13} {seconds:7.1f} s")
    venv = folder / "venv-filled"
    [packages] = venv.glob("lib/python*/site-packages")
    sizes = package_sizes(packages)
    print(f"site-packages                {sum(sizes.values()):7.1f} MiB in {len(sizes)} folders and files")
    for name in sorted(sizes, key=lambda key: -sizes[key])[:6]:
        print(f"  {name:<26} {sizes[name]:7.1f}")
    for statement in ("pass", "import pydantic.main", "import verl_lite.plugins", "import verl_lite.cli.app"):
        walls_s, cpus_s = time_python(venv / "bin" / "python", statement, repeats)
        print(
            f"python -c '{statement}':".ljust(40),
            f"{statistics.median(walls_s):.3f} s (fastest {min(walls_s):.3f}), "
            f"CPU {statistics.median(cpus_s):.3f} s (fastest {min(cpus_s):.3f})",
        )
    print(f"heavy modules it loads: {heavy_modules(venv / 'bin' / 'python') or 'none'}")


def build_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def install(wheel: Path, venv: Path, cache: Path) -> float:
    """Seconds for an empty environment and everything in it."""
    started = time.perf_counter()
    variables = {**os.environ, "UV_CACHE_DIR": str(cache), "UV_LINK_MODE": "copy"}
    subprocess.run([*UV, "venv", "-q", "--python", sys.executable, venv], check=True, env=variables)
    target = ["--python", venv / "bin" / "python"]
    subprocess.run([*UV, "pip", "install", "-q", *target, wheel], check=True, env=variables)
    return time.perf_counter() - started


def package_sizes(packages: Path) -> dict[str, float]:
    """MiB of each entry of site-packages; compiled Python is not there yet."""
    return {
        entry.name: sum(file.stat().st_size for file in [entry, *entry.rglob("*")] if file.is_file()) / 2**20
        for entry in packages.iterdir()
    }


def time_python(python: Path, statement: str, repeats: int) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of processes that run `statement`; one more only compiles."""
    walls, cpus = [], []
    for _ in range(repeats + 1):
        before, started = os.times(), time.perf_counter()
        subprocess.run([python, "-c", statement], check=True)
        walls.append(time.perf_counter() - started)
        after = os.times()
        cpus.append(
            after.children_user - before.children_user + after.children_system - before.children_system
        )
    return walls[1:], cpus[1:]


def heavy_modules(python: Path) -> str:
    code = f"import sys, verl_lite.plugins; print(*[name for name in {HEAVY} if name in sys.modules])"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
