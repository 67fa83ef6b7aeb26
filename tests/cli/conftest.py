"""The command, run in the test's own process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from verl_lite.cli import main


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Run the command in this process, with a cache of its own, and return its exit code."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["verl-lite", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run
