"""The command, run as users run it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def command() -> Callable[..., str]:
    """`command(folder, "train", ...)` must succeed, and `is_silent` on stderr; returns what it printed."""

    def run(folder: Path, *arguments: str, is_silent: bool = True) -> str:
        program = str(Path(sys.executable).parent / "verl-lite")
        # one thread, as in the tests' own processes: two of them share the machine
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [program, *arguments], cwd=folder, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert not is_silent or done.stderr == ""
        return done.stdout

    return run
