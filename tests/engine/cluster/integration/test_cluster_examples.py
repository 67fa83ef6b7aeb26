"""The command in the docs is a valid config, and the job script runs; the examples are in test_plan.py."""

import os
import subprocess
from pathlib import Path

from verl_lite.engine.build import placed_by_ray
from verl_lite.engine.config import TrainConfig
from verl_lite.plugins import load_config

EXAMPLES = Path(__file__).parents[4] / "examples"


def test_the_command_of_the_docs_is_a_config() -> None:
    overrides = ["cluster.address=auto", "learner.num_ranks=8", "rollout.num_engines=8"]
    config = load_config(TrainConfig, EXAMPLES / "gsm8k_grpo.yaml", overrides)
    assert placed_by_ray(config, launched=False).cpus == 16


def test_the_job_script_asks_for_what_it_needs() -> None:
    script = EXAMPLES / "cluster_ray_job.sh"
    subprocess.run(["sh", "-n", str(script)], check=True)
    refused = subprocess.run(["sh", str(script)], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "usage: cluster_ray_job.sh CONFIG RUN_DIR" in refused.stderr


def test_the_job_is_the_run_with_its_folder_and_overrides(tmp_path: Path) -> None:
    """`ray` is stood in for by a script that prints its arguments, one a line."""
    stub = tmp_path / "ray"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    script = [
        "sh",
        str(EXAMPLES / "cluster_ray_job.sh"),
        "some.yaml",
        "/shared/runs/one",
        "rewards.a={use: b}",
    ]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        script, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )
    submitted = ["job", "submit", "--working-dir", ".", "--entrypoint-num-cpus", "1", "--"]
    trained = ["verl-lite", "train", "some.yaml", "rewards.a={use: b}", "cluster.address=auto"]
    folder = ["--run-dir", "/shared/runs/one", "--auto-resume"]
    assert done.stdout.splitlines() == [*submitted, *trained, *folder]
