"""An environment of its own for tests that install packages and run commands."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees the packages of the one the tests run in, and keeps its own."""

    folder: Path
    home: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def variables(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "VERL_"))}
        return {
            **kept,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "COLUMNS": "110",
            "NO_COLOR": "1",
            "PYTHONWARNINGS": "error::UserWarning",
            # pip builds with the hatchling that is installed and asks no registry
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def run(
        self, *command: str | Path, cwd: Path, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of this environment; its output is text, its exit code is not looked at."""
        return subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=120,
        )


def make_environment(folder: Path) -> Environment:
    command = [sys.executable, "-m", "venv", "--without-pip", folder / "venv"]
    subprocess.run(command, check=True, timeout=60)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = folder / "venv" / "lib" / version / "site-packages"
    outer = sysconfig.get_path("purelib")
    (own / "outer_environment.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
    environment = Environment(folder / "venv", folder / "home")
    environment.home.mkdir()
    script = f"#!{environment.bin / 'python'}\nfrom verl_lite.cli import main\nmain()\n"
    (environment.bin / "verl-lite").write_text(script)
    (environment.bin / "verl-lite").chmod(0o755)
    return environment


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A fresh environment below the test's folder."""
    return make_environment(tmp_path)


@pytest.fixture(scope="session")
def new_environment() -> Callable[[Path], Environment]:
    """Makes environments, for fixtures that share one between tests."""
    return make_environment
