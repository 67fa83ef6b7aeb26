"""environment.json, and torch's settings for repeatable runs.

environment.json has the versions of all packages, plugins with their hashes, the state of the git
checkout, the hardware and fingerprints of the data, and only the environment variables below: others may be
secrets.
"""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.rundir.switches import COMPILERS, GPU_SWITCHES

VARIABLES = (
    *("CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"),
    *(*COMPILERS, *GPU_SWITCHES),
)
GIT_TIMEOUT_S = 5.0


def describe_environment(
    plugins: Sequence[Mapping[str, str]], data: Mapping[str, Mapping[str, Any]], *, date: str = ""
) -> dict[str, Any]:
    """The content of environment.json; `data` has the fingerprints by name, `date` is the templates'."""
    return {
        "date": date,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "torch_threads": torch.get_num_threads(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "git": _git_state(Path.cwd()),
        "data": dict(data),
        "packages": dict(sorted((d.name, d.version) for d in importlib.metadata.distributions() if d.name)),
        "plugins": list(plugins),
    }


def _gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git_state(folder: Path) -> dict[str, Any] | None:
    """The commit and the files that differ from it; None outside a checkout or without git."""
    commit, status = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain")
    if commit is None or status is None:
        return None
    difference = _git(folder, "diff", "HEAD") or ""
    return {
        "commit": commit.strip(),
        "changed_files": [line[3:] for line in status.splitlines()],
        "diff_sha256": hashlib.sha256(difference.encode()).hexdigest() if difference else None,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=GIT_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None


def make_deterministic() -> None:
    """Use one CPU thread and only bitwise repeatable kernels; operations without one raise RuntimeError."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    if not torch.cuda.is_available():
        torch.set_num_threads(1)


def seed_torch(seed: int, *, deterministic: bool) -> None:
    """Seed torch's generators, for new adapters and dropout; `make_deterministic` if wanted."""
    if deterministic:
        make_deterministic()
    torch.manual_seed(derive_seed(seed, "torch"))
