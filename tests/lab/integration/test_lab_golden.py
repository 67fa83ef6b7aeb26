"""Golden files pin scores, fail when they move, and run under pytest in a project of their own."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verl_lite.errors import DataError
from verl_lite.lab import compare_golden, make_golden, write_golden

Rows = list[dict[str, Any]]


@pytest.fixture
def golden(rollout_file: Callable[..., Path], sums: Rows, tmp_path: Path) -> Path:
    config = tmp_path / "rewards.yaml"
    config.write_text("rewards: {correct: {use: exact}}\n")
    path = tmp_path / "scores.golden.json"
    write_golden(path, make_golden(path, config, rollout_file(sums[:8])))
    return path


def test_pinned_scores_compare_equal(golden: Path) -> None:
    data = json.loads(golden.read_text())
    assert (data["config"], data["rollouts"]) == ("rewards.yaml", "rollouts.jsonl")
    assert [row["reward"] for row in data["rows"]] == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    assert compare_golden(golden) == []


def test_scores_that_moved_are_named(golden: Path) -> None:
    data = json.loads(golden.read_text())
    data["rows"][4]["reward"] = 0.5
    data["rows"][4]["components"]["correct"]["value"] = 0.5
    data["rows"][5]["components"]["correct"] = {"value": None, "outcome": "error"}
    data["rows"][6]["components"] = {"other": {"value": 1.0}}
    golden.write_text(json.dumps(data))
    assert [str(mismatch) for mismatch in compare_golden(golden)] == [
        "row 5 (row-5): reward was 0.5, is 0.0; correct was 0.5, is 0.0",
        "row 6 (row-6): correct was error, is ok",
        "row 7 (row-7): other is gone; correct is new",
    ]


def test_tolerances_are_per_component(golden: Path) -> None:
    data = json.loads(golden.read_text())
    data["rows"][4]["components"]["correct"]["value"] = 0.05
    data["tolerances"] = {"correct": 0.1}
    golden.write_text(json.dumps(data))
    assert compare_golden(golden) == []


def test_other_rollouts_are_refused(golden: Path, sums: Rows, rollout_file: Callable[..., Path]) -> None:
    rollout_file(sums[:3])
    with pytest.raises(DataError, match=r"pins 8 rows, rollouts\.jsonl has 3"):
        compare_golden(golden)


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_pytest_runs_golden_files_when_asked(golden: Path) -> None:
    assert "1 passed" in run_pytest(golden.parent, "--verl-lite-golden").stdout
    assert "no tests ran" in run_pytest(golden.parent).stdout
    data = json.loads(golden.read_text())
    data["rows"][0]["reward"] = 0.0
    golden.write_text(json.dumps(data))
    failed = run_pytest(golden.parent, "--verl-lite-golden")
    assert failed.returncode == 1
    assert "row 1 (row-1): reward was 0.0, is 1.0" in failed.stdout


def test_the_fixture_scores_plain_rows(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "def test_mine(score_rollouts):\n"
        "    rows = [{'completion': '42', 'reference': '42'}, {'completion': '4', 'reference': '42'}]\n"
        "    scored = score_rollouts({'mine': {'use': 'exact'}}, rows)\n"
        "    assert [row.reward for row in scored] == [1.0, 0.0]\n"
    )
    assert "1 passed" in run_pytest(tmp_path).stdout
