"""Start-up shared by commands that load models. Imports nothing heavy itself."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from verl_lite.plugins.config_file import ConfigModel

INTERRUPTED = 130  # exit code after Ctrl-C
Config = TypeVar("Config", bound="ConfigModel")


def calm_threads() -> None:
    """Let idle OpenMP threads sleep instead of spin. Call it before importing torch, which reads this once.

    When other processes (such as reward workers) need the cores, spinning delays every small matmul.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def load_run_config(kind: type[Config], path: Path, overrides: list[str] | None) -> Config:
    """The config in `path` with its overrides; calms threads before torch is loaded."""
    from verl_lite.plugins.config_file import load_config

    calm_threads()
    return load_config(kind, path, overrides or [])
