"""What commands that load models do first. Like the whole room, it imports nothing heavy itself."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from verl_lite.plugins.config_file import ConfigModel

INTERRUPTED = 130  # the exit code of a command that Ctrl-C ended
Config = TypeVar("Config", bound="ConfigModel")


def calm_threads() -> None:
    """Have idle OpenMP threads sleep instead of spin; call it before torch, which reads this once.

    Wherever the cores have other work (reward workers, say), spinning delays every small matrix product.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def load_run_config(kind: type[Config], path: Path, overrides: list[str] | None) -> Config:
    """The config in `path` with its overrides, and threads calmed for what is loaded next."""
    from verl_lite.plugins.config_file import load_config

    calm_threads()
    return load_config(kind, path, overrides or [])
