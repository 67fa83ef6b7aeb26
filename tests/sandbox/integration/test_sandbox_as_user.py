"""The sandbox's tests once more, as an ordinary user, when they run as root: the layers differ."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
LAUNCHER = FOLDER.parent / "run_as_user.py"


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    ("launched", "suites", "selected"),
    [
        pytest.param([], ["attacks"], "not slow", id="attacks"),
        pytest.param([], ["attacks"], "slow", id="attacks in bubblewrap", marks=pytest.mark.slow),
        # Root's sandboxes switch to another user, who sees an interpreter below /root only like this.
        pytest.param(["--root"], ["attacks"], "slow", id="in bubblewrap as root", marks=pytest.mark.slow),
        pytest.param(
            [],
            ["limits", "programs", "lifetime", "backends", "languages"],
            "not slow",
            id="rest",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_same_holds_as_an_ordinary_user(launched: list[str], suites: list[str], selected: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user already")
    launcher = [sys.executable, str(LAUNCHER), *launched]
    tried = subprocess.run([*launcher, sys.executable, "-c", "pass"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"cannot become another user here: {tried.stderr.decode()[-300:]}")
    tests = [str(FOLDER / f"test_sandbox_{name}.py") for name in suites]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", "-m", selected, *tests]
    ran = subprocess.run([*launcher, *command], capture_output=True, text=True, cwd=FOLDER, check=False)
    if "no isolation on this machine" in ran.stdout:
        pytest.skip("ordinary users cannot isolate here: " + ran.stdout[-500:])
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 60
