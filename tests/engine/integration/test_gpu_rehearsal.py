"""The GPU script: limits, cut-off, failures, parts of packages, and a machine without a GPU."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "benchmarks" / "gpu" / "run_all.sh"


def run(out: Path, *options: str) -> tuple[int, dict[str, dict[str, object]], str]:
    done = subprocess.run(
        [str(SCRIPT), "--out", str(out), *options],
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "HOME": str(out)},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    found = json.loads((out / "summary.json").read_text()) if (out / "summary.json").exists() else []
    return done.returncode, {one["stage"]: one for one in found}, done.stdout + done.stderr


def test_without_a_gpu_every_stage_says_so(tmp_path: Path) -> None:
    code, stages, said = run(tmp_path, "--only", "versions")
    assert (code, stages["versions"]["status"]) == (0, "skipped"), said
    assert stages["versions"]["reason"] == "no GPU that torch can use is here (--rehearse runs on the CPU)"


@pytest.fixture
def run_all(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("run_all")


def test_the_stages_take_at_most_eight_minutes_together(run_all: Any) -> None:
    assert sum(run_all.LIMITS.values()) <= run_all.TOTAL_S == 8 * 60
    page = (SCRIPT.parent / "README.md").read_text()
    for stage, seconds in run_all.LIMITS.items():
        assert f"| `{stage}` | {seconds} |" in page


def test_a_stage_over_its_limit_is_ended_and_keeps_what_it_wrote(
    run_all: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "stages.py"
    slow.write_text(
        "import pathlib, sys, time\npathlib.Path(sys.argv[3]).write_text('{\"rows\": 1}')\ntime.sleep(600)\n"
    )
    monkeypatch.setattr(run_all, "HERE", tmp_path)
    outcome = run_all.run("learner", tmp_path, [], {"PATH": "/usr/bin:/bin"}, limit_s=5)
    assert (outcome.status, outcome.reason) == ("timed out", "after 5 s; what it had written is kept")
    assert json.loads((tmp_path / "learner.json").read_text()) == {"rows": 1}
    slow.write_text("raise SystemExit('no kernel image is available')\n")
    outcome = run_all.run("learner", tmp_path, [], {"PATH": "/usr/bin:/bin"}, limit_s=60)
    assert (outcome.status, outcome.reason) == ("failed", "no kernel image is available")


def test_parts_of_packages_are_put_together_in_order(run_all: Any, tmp_path: Path) -> None:
    """And a folder without parts is one clear line."""
    site = tmp_path / "made"
    site.mkdir()
    (site / "package.py").write_text("x = 1\n" * 5000)
    subprocess.run(["tar", "-C", str(site), "-cJf", str(tmp_path / "whole"), "."], check=True)
    data = (tmp_path / "whole").read_bytes()
    parts = tmp_path / "parts"
    parts.mkdir()
    for at in range(3):
        size = len(data) // 3 + 1
        (parts / f"part-{at:02d}").write_bytes(data[at * size : (at + 1) * size])
    out = run_all.unpack(parts, tmp_path / "site")
    assert (out / "package.py").read_text() == "x = 1\n" * 5000
    with pytest.raises(SystemExit, match="has no files named part-"):
        run_all.unpack(site, tmp_path / "other")
