"""The GPU kernels of the log-probabilities, in Triton's interpreter on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def measured():
    script = Path(__file__).parent.parent / "kernel_scenarios.py"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_they_compute_what_torch_does(measured):
    """Values and gradients, with every rule of a head, with and without entropy, up to float32's rounding."""
    assert len(measured["differences"]) == 8
    assert max(measured["differences"].values()) < 3e-5, measured["differences"]


def test_extreme_logits_stay_finite_and_unused_rows_get_no_gradient(measured):
    extremes = measured["extremes"]
    assert extremes["finite"]
    assert extremes["unused"] == 0.0
    assert extremes["used"] > 0.0
