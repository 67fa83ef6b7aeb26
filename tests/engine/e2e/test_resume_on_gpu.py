"""A run on a GPU that is stopped and resumed is bitwise the run that never stopped."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine import train
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.observe import read_metrics
from verl_lite.plugins import validate

IS_REHEARSAL = os.environ.get("VERL_LITE_REHEARSE_GPU") == "1"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() and not IS_REHEARSAL, reason="needs a GPU"),
]


def test_resume_is_exact(small_run: dict[str, Any], tmp_path: Path) -> None:
    small_run |= {"deterministic": True, "checkpoints": {"every_steps": 2}}
    small_run["learner"]["compile"] = False
    config = validate(TrainConfig, small_run, source="test")
    was = torch.are_deterministic_algorithms_enabled()
    try:
        train(config, run_dir=tmp_path / "whole", debug_inline=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "cut")
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step_000004")
        (tmp_path / "cut" / "summary.json").unlink()
        train(config, run_dir=tmp_path / "cut", resume=True, debug_inline=True)
    finally:
        torch.use_deterministic_algorithms(was)
    whole, cut = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut"))
    for name in ("reward/mean", "loss/policy", "learner/grad_norm", "policy/kl_sampler_trainer"):
        values = [[row[name] for row in rows] for rows in (whole, cut)]
        assert values[0] == values[1]
        assert len(values[0]) == 4
