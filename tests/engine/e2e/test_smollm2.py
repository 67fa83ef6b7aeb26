"""A real pretrained model, SmolLM2-135M-Instruct out of its registry package: every mode trains it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from verl_lite.engine.model import fetch_model
from verl_lite.engine.observe import read_metrics
from verl_lite.errors import ConfigError

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "smollm2.yaml"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
# Two steps of everything, with some answers right from the start: SFT shows the form first.
SHORT = (
    "steps=2",
    "sft={steps: 4, batch_rows: 16, optimizer: {learning_rate: 5.0e-5}}",
    "data.held_out.num_rows=8",
    "rollout.num_prompts=4",
    "rollout.num_samples=4",
    "rollout.vllm.kv_cache_gib=0.25",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    try:
        file, _ = fetch_model("smollm2", tmp_path_factory.mktemp("models"))
    except ConfigError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the registry does not answer: {error}")
    return str(file)


def run(folder: Path, *arguments: str) -> str:
    """One command in `folder`, which must succeed; returns what it printed."""
    command = [str(Path(sys.executable).parent / "verl-lite"), *arguments]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr  # bitsandbytes, for one, writes there under LoRA
    return done.stdout


@pytest.mark.parametrize(
    "mode",
    [
        ("learner.lora={rank: 8, alpha: 16}",),
        ("asynchrony.mode=one_ahead", "algorithm.importance={mode: truncate}"),
        ("algorithm.advantage=gae", "algorithm.critic={}"),
    ],
    ids=["LoRA", "one_ahead", "PPO"],
)
def test_every_mode_takes_it(tmp_path: Path, model: str, mode: tuple[str, ...]) -> None:
    run(tmp_path, "train", str(EXAMPLE), *SHORT, *mode, f"model.path={model}", "--run-dir=run")
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "reward/mean" in row]
    assert len(rows) == 2
    assert all(row["policy/kl_sampler_trainer"] < 0.05 for row in rows)
    assert max(row["reward/mean"] for row in rows) > 0
