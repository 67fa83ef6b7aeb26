"""A few faults of different kinds; benchmarks/fault_campaign.py does hundreds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "fault_campaign.py"


@pytest.mark.slow  # in one process each: rundir/
def test_five_faults_leave_the_run_as_it_would_have_been(tmp_path: Path) -> None:
    report = tmp_path / "faults.json"
    options = ["--faults", "5", "--faults-a-run", "1", "--seed", "3", "--json", str(report)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads(report.read_text())
    assert sum(trial["faults"] for trial in trials) >= 5
    assert {"kill", "kill_writing", "damage"} <= {trial["kind"] for trial in trials}
    assert [trial["problems"] for trial in trials] == [[]] * len(trials)
    assert all(trial["starts"] > 1 for trial in trials if trial["kind"] in ("kill_writing", "damage"))
