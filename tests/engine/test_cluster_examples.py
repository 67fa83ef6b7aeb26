"""The command in the docs is a valid config, and the job script runs; the examples are in test_plan.py."""

import os
import subprocess
from pathlib import Path

from verl_lite.engine.config import TrainConfig
from verl_lite.plugins.config_file import load_config

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_command_of_the_docs_is_a_config() -> None:
    overrides = ["cluster.address=auto", "learner.num_ranks=8", "rollout.num_engines=8"]
    config = load_config(TrainConfig, EXAMPLES / "gsm8k_grpo.yaml", overrides)
    assert config.placed_cpus == 16


def test_the_job_script_asks_for_what_it_needs() -> None:
    script = EXAMPLES / "cluster_ray_job.sh"
    subprocess.run(["sh", "-n", str(script)], check=True)
    refused = subprocess.run(["sh", str(script)], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "usage: cluster_ray_job.sh CONFIG RUN_DIR" in refused.stderr


def test_the_job_goes_on_where_it_is_started_again(tmp_path: Path) -> None:
    """Here `ray job submit -- COMMAND` is COMMAND itself, and verl-lite prints its arguments."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "ray").write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    (stubs / "verl-lite").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    for stub in stubs.iterdir():
        stub.chmod(0o755)
    run_dir = tmp_path / "runs" / "one"

    def submit() -> list[str]:
        script = ["sh", str(EXAMPLES / "cluster_ray_job.sh"), "some.yaml", str(run_dir), "rewards.a={use: b}"]
        path = f"{stubs}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            script, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
        )
        return done.stdout.splitlines()

    first = ["train", "some.yaml", "rewards.a={use: b}", "cluster.address=auto", "--run-dir", str(run_dir)]
    assert submit() == first
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").touch()
    assert submit() == [*first, "--resume"]
