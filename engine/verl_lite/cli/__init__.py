"""The `verl-lite` command. Thin: each command imports its room when it runs, so that --help is fast."""

from verl_lite.cli.app import main

__all__ = ["main"]
