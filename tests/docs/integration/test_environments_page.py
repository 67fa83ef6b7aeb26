"""docs/environments.md: its files and commands, from top to bottom."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow  # its commands, each: tests/authoring and tests/plugins
def test_environments(page: Callable[[str], Any], environment: Any, tmp_path: Path) -> None:
    tutorial = page("environments.md")
    unused = [
        block for block in tutorial.blocks if not block.path and block.language not in ("console", "yaml")
    ]
    assert unused == [], "every block is a file, commands or a part of a config"
    assert sum(block.language == "console" for block in tutorial.blocks) == 4
    tutorial.run(tmp_path, environment.variables)
