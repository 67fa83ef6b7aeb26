"""The cluster examples are valid configs that fit the GPUs they are written for; the job script runs."""

import subprocess
from pathlib import Path

import pytest

from verl_lite.engine.config import TrainConfig
from verl_lite.engine.model_shape import ModelShape
from verl_lite.engine.plan import GIB, Gpu, make_plan
from verl_lite.errors import ConfigError
from verl_lite.plugins.config_file import load_config

EXAMPLES = Path(__file__).parents[2] / "examples"
H100 = Gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=80 * GIB)
QWEN3_8B = ModelShape(
    num_parameters=8_190_735_360,
    num_layers=36,
    hidden_size=4096,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=12288,
)


@pytest.mark.parametrize("name", ["cluster_one_node_8gpu.yaml", "cluster_2_plus_2_nodes.yaml"])
def test_the_example_fits_gpus_of_80_gib_and_no_smaller_ones(name: str) -> None:
    config = load_config(TrainConfig, EXAMPLES / name)
    plan = make_plan(config, QWEN3_8B, H100)
    assert all(device.total_bytes < 80 * GIB for device in plan.devices)
    with pytest.raises(ConfigError, match="GiB"):
        make_plan(config, QWEN3_8B, Gpu(name="small", memory_bytes=12 * GIB))


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
