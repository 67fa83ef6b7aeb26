"""The `verl-lite` command. Thin: each command imports what it needs when it runs."""

from verl_lite.cli.app import main

__all__ = ["main"]
