"""The `verl-lite` command. Thin: each command imports what it needs when it runs."""

from verl_lite.cli import train as _train  # noqa: F401 - registers its commands
from verl_lite.cli.app import main

__all__ = ["main"]
