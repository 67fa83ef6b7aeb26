"""The command in the docs is a valid config, and the job script runs; the examples are in test_plan.py."""

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
