"""A learner that is several ranks computes what one does, also from each other's checkpoints."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine.config import LearnerConfig
from verl_lite.engine.learner import SINGLE_RANK, balance_ranks
from verl_lite.errors import CheckpointError

SCRIPT = Path(__file__).parents[1] / "rank_scenarios.py"
RANKS = 2


def load_scenarios() -> Any:
    spec = importlib.util.spec_from_file_location("rank_scenarios", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scenarios = load_scenarios()


QUICK = ["grpo", "long tail", "not finite"]
SLOW = [name for name in scenarios.SCENARIOS if name not in QUICK]


def run_ranks(folder: Path, names: list[str]) -> dict[str, Any]:
    """Two ranks' results, who find in folder/whole the checkpoint of a learner in one process."""
    learner = scenarios.make_learner(scenarios.RESUMED, SINGLE_RANK)
    for step in range(scenarios.STEPS):
        samples = scenarios.steps_samples(scenarios.SCENARIOS[scenarios.RESUMED], step, learner)
        learner.update(samples)
    (folder / "whole").mkdir()
    torch.save(learner.state_dict(), folder / "whole" / "learner.pt")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(SCRIPT), str(RANKS), str(folder), *names]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            _, said = process.communicate(timeout=240)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said
    results: dict[str, Any] = torch.load(folder / "results.pt", weights_only=True)
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return run_ranks(folder, QUICK)


@pytest.fixture(scope="module")
def other_results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_ranks(tmp_path_factory.mktemp("others"), SLOW)


def assert_same(one: dict[str, Any], several: dict[str, Any]) -> None:
    for left, right in zip(one["metrics"], several["metrics"], strict=True):
        assert right == pytest.approx(left, rel=1e-6, abs=1e-8)
    assert one["weights"].keys() == several["weights"].keys()
    for name, weight in one["weights"].items():
        torch.testing.assert_close(several["weights"][name], weight, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("name", QUICK)
def test_two_ranks_make_the_update_of_one(results: dict[str, Any], tmp_path: Path, name: str) -> None:
    check_scenario(results, tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_two_ranks_make_every_update_of_one(other_results: dict[str, Any], tmp_path: Path, name: str) -> None:
    check_scenario(other_results, tmp_path, name)


def check_scenario(results: dict[str, Any], tmp_path: Path, name: str) -> None:
    one = scenarios.run(name, SINGLE_RANK, tmp_path)
    start = dict(scenarios.make_learner(name, SINGLE_RANK).named_weights())
    moved = max(float((one["weights"][key] - start[key]).abs().max()) for key in start)
    assert moved > 1e-4  # far more than the tolerance
    for parallel in ("fsdp", "replicated"):
        several = results[f"{parallel}/{name}"]
        assert_same(one, several)
        assert several["logprobs"] == pytest.approx(one["logprobs"], abs=1e-7)
        assert several["coefficient"] == pytest.approx(one["coefficient"])


def test_a_bad_step_is_agreed_on_and_its_batch_kept_once(results: dict[str, Any], folder: Path) -> None:
    for parallel in ("fsdp", "replicated"):
        first, second = results[f"{parallel}/not finite"]["metrics"]
        assert first["learner/grad_norm"] == 0.0
        assert first["learner/bad_steps"] == second["learner/bad_steps"] == 1.0
        assert second["learner/grad_norm"] > 0.0
        assert len(list((folder / f"bad-{parallel}").iterdir())) == 1


def test_a_run_goes_on_the_same_on_another_number_of_ranks(results: dict[str, Any], folder: Path) -> None:
    one = scenarios.continued(SINGLE_RANK, folder / "whole")
    assert_same(one, results["from one file"])  # 1 -> 2
    assert_same(one, results["from shards"])  # 2 -> 2
    assert_same(one, scenarios.continued(SINGLE_RANK, folder / "sharded"))  # 2 -> 1


@pytest.mark.usefixtures("results")
def test_shards_are_safetensors_and_one_that_is_gone_is_named(folder: Path) -> None:
    files = sorted(path.name for path in (folder / "sharded" / "learner").iterdir())
    assert len(files) == RANKS
    assert all(name.endswith(".safetensors") for name in files)
    (folder / "sharded" / "learner" / files[1]).rename(folder / "aside")
    try:
        with pytest.raises(CheckpointError, match="is damaged"):
            scenarios.continued(SINGLE_RANK, folder / "sharded")
    finally:
        (folder / "aside").rename(folder / "sharded" / "learner" / files[1])


def test_ragged_samples_are_shared_out_by_tokens() -> None:
    samples = scenarios.make_samples(16, 4, seed=3, completion=(1, 200))
    for num_ranks in (2, 3, 8):
        shares = balance_ranks(samples, num_ranks=num_ranks, max_tokens=4096, shared=[0] * len(samples))
        assert sorted(index for share in shares for index in share) == list(range(len(samples)))
        tokens = [
            sum(len(samples[i].prompt_ids) + len(samples[i].completion_ids) - 1 for i in share)
            for share in shares
        ]
        assert max(tokens) - min(tokens) <= 220  # no more than one sample


def test_one_group_s_shared_prompt_is_cut_for_the_ranks() -> None:
    samples = scenarios.make_samples(1, 8, seed=0, completion=(10, 10))
    shares = balance_ranks(
        samples, num_ranks=2, max_tokens=4096, shared=[len(one.prompt_ids) for one in samples]
    )
    assert min(len(share) for share in shares) >= 3


def test_ranks_without_samples_get_empty_shares() -> None:
    samples = scenarios.make_samples(1, 1, seed=0)
    assert balance_ranks(samples, num_ranks=3, max_tokens=64, shared=[0]) == [[0], [], []]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"optimizer": {"bits": 8}}, "another number of ranks could not resume"),
        ({"optimizer": {"offload": True}}, "a rank holds shards"),
        ({"lora": {"quantize": True}}, "4-bit blocks"),
    ],
)
def test_what_shards_cannot_do_is_refused_with_the_reason(setting: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LearnerConfig.model_validate({"num_ranks": 2, **setting})
    LearnerConfig.model_validate({"num_ranks": 2, "parallel": "replicated", **setting})
