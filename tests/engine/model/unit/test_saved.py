"""A saved policy is loaded again and compared with the trained one."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from verl_lite.engine.model import load_policy, save_policy, saved
from verl_lite.engine.testing import write_family
from verl_lite.errors import CheckpointError

IDS = list(range(6, 46))
CPU = torch.device("cpu")


def _logprobs(model: torch.nn.Module) -> list[float]:
    ids = torch.tensor([IDS])
    with torch.no_grad():
        chosen = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return [float(value) for value in chosen]


def _check(folder: Path, logprobs: list[float], names: tuple[str, ...] = ()) -> None:
    saved.check_saved_policy(folder, IDS, logprobs, dtype="float32", limit=1e-3, names=lambda: names)


@pytest.fixture
def trained(tmp_path: Path) -> torch.nn.Module:
    write_family("deepseek-v3", tmp_path / "hub")
    return load_policy(str(tmp_path / "hub"), dtype="float32", device=CPU).eval()


def test_a_whole_model_passes(trained: torch.nn.Module, tmp_path: Path) -> None:
    save_policy(trained, None, tmp_path / "policy")
    _check(tmp_path / "policy", _logprobs(trained))


def test_a_model_without_its_router_bias_is_refused(trained: torch.nn.Module, tmp_path: Path) -> None:
    weights = {name: parameter.detach() for name, parameter in trained.named_parameters()}  # no buffers
    save_policy(trained, None, tmp_path / "policy", weights=weights)
    with pytest.raises(
        CheckpointError, match=r"policy is not the one that was trained: .* lack .*correction_bias"
    ):
        _check(tmp_path / "policy", _logprobs(trained))


def test_saving_compares_by_itself(
    trained: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved.save_checked(trained, None, tmp_path / "policy")
    without_bias = dict(trained.named_parameters())
    monkeypatch.setattr(saved, "save_policy", partial(save_policy, weights=without_bias))
    with pytest.raises(CheckpointError, match="other is not the one that was trained"):
        saved.save_checked(trained, None, tmp_path / "other")


def test_nan_is_refused(trained: torch.nn.Module, tmp_path: Path) -> None:
    save_policy(trained, None, tmp_path / "policy")
    logprobs = _logprobs(trained)
    logprobs[3] = math.nan
    with pytest.raises(CheckpointError, match="of token 4 is"):
        _check(tmp_path / "policy", logprobs)


def test_without_memory_for_a_second_model_the_names_are_compared(
    trained: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved, "_device_with_room", lambda size: None)
    save_policy(trained, None, tmp_path / "policy")
    _check(tmp_path / "policy", [], names=("lm_head.weight",))
    with pytest.raises(CheckpointError, match=r"lacks 1 weights of the trained one: router\.bias"):
        _check(tmp_path / "policy", [], names=("lm_head.weight", "router.bias"))


def test_a_sharded_learners_folder_has_nothing_to_compare(tmp_path: Path) -> None:
    _check(tmp_path, [])
