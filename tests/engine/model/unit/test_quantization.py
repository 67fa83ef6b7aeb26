"""8-bit moments and a 4-bit base: refused without bitsandbytes, right with it (CPU or GPU)."""

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine.config import AlgorithmConfig, LearnerConfig, LoraConfig, OptimizerConfig
from verl_lite.engine.learner import Learner, PolicyOptimizer
from verl_lite.engine.model import add_adapters, check_bitsandbytes, load_policy, save_policy
from verl_lite.errors import ConfigError

CPU = torch.device("cpu")
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
# its own imports warn
from_its_imports = pytest.mark.filterwarnings("ignore")


def test_without_the_package_the_keys_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    eight = LearnerConfig(optimizer=OptimizerConfig(bits=8))
    with pytest.raises(ConfigError, match=r"learner\.optimizer\.bits=8 needs the bitsandbytes package"):
        check_bitsandbytes(eight)
    both = eight.model_copy(update={"lora": LoraConfig(quantize=True)})
    with pytest.raises(ConfigError, match=r"bits=8 and learner\.lora\.quantize=true needs"):
        check_bitsandbytes(both)
    check_bitsandbytes(LearnerConfig(lora=LoraConfig()))


def test_adapters_are_not_put_on_a_base_that_is_not_in_four_bits(tiny_model: Any) -> None:
    with pytest.raises(ValueError, match="needs a base in 4 bits"):
        add_adapters(tiny_model(torch.float32), LoraConfig(quantize=True))


def make_learner(model: Any, **options: Any) -> Learner:
    optimizer = OptimizerConfig(learning_rate=1e-2, schedule="constant")
    config = LearnerConfig(optimizer=optimizer, **options)
    return Learner(model, config, AlgorithmConfig(), pad_token_id=0, total_steps=10)


def test_a_lora_state_holds_the_adapters_alone_and_continues_exactly(
    tiny_model: Any, make_samples: Any
) -> None:
    lora = LoraConfig(rank=4)
    whole = make_learner(tiny_model(torch.float32), lora=lora)
    whole.update(make_samples())
    state = copy.deepcopy(whole.state_dict())
    assert state["model"]
    assert all("lora_" in name for name in state["model"])
    resumed = make_learner(tiny_model(torch.float32), lora=lora)
    resumed.load_state_dict(state)
    for learner in (whole, resumed):
        learner.update(make_samples(seed=1))
    for (name, left), (_, right) in zip(whole.named_weights(), resumed.named_weights(), strict=True):
        assert torch.equal(left, right), name
    with pytest.raises(ValueError, match="with other adapters"):
        make_learner(tiny_model(torch.float32)).load_state_dict(state)


@needs_bitsandbytes
@from_its_imports
def test_eight_bit_moments_follow_adamw_and_come_back() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(64, 128, generator=generator)
    gradients = [torch.randn(64, 128, generator=generator) for _ in range(6)]

    def run(bits: Any, cut_at: int | None = None) -> tuple[torch.Tensor, PolicyOptimizer]:
        config = OptimizerConfig(learning_rate=1e-2, schedule="constant", bits=bits)
        parameter = torch.nn.Parameter(start.clone())
        optimizer = PolicyOptimizer([parameter], config, total_steps=6)
        for step, gradient in enumerate(gradients):
            if step == cut_at:
                state = copy.deepcopy(optimizer.state_dict())
                parameter = torch.nn.Parameter(parameter.detach().clone())
                optimizer = PolicyOptimizer([parameter], config, total_steps=6)
                optimizer.load_state_dict(state)
            parameter.grad = gradient.clone()
            optimizer.step()
        return parameter.detach(), optimizer

    exact, _ = run(32)
    eight, optimizer = run(8)
    (state,) = optimizer._adam.state.values()
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8
    moved = (exact - start).norm()
    assert 0 < (eight - exact).norm() < 0.1 * moved
    resumed, _ = run(8, cut_at=3)
    assert torch.equal(resumed, eight)


@needs_bitsandbytes
@from_its_imports
def test_qlora_trains_adapters_on_a_four_bit_base(
    small_model: Path, tokenizer: Any, make_samples: Any, tmp_path: Path
) -> None:
    def quantized() -> Learner:
        model = load_policy(str(small_model), dtype="float32", device=CPU, quantize=True)
        return make_learner(model, lora=LoraConfig(rank=4, quantize=True))

    plain = load_policy(str(small_model), dtype="float32", device=CPU)
    learner = quantized()
    start = dict(learner.named_weights())
    assert {name: w.shape for name, w in start.items()} == {n: p.shape for n, p in plain.named_parameters()}
    name = "model.layers.0.mlp.up_proj.weight"
    original = dict(plain.named_parameters())[name]
    error = float((start[name] - original).norm() / original.norm())
    assert 0.01 < error < 0.15  # four bits, and not the original
    ids = [3, 1, 4, 1, 5, 9]
    first = learner.token_logprobs(ids)
    samples = make_samples()
    learner.update(samples)
    state = copy.deepcopy(learner.state_dict())
    assert all("lora_" in key for key in state["model"])
    learner.update(samples)
    assert not torch.equal(dict(learner.named_weights())[name], start[name])

    # what a sampler gets computes what the learner computes
    save_policy(learner.policy.model, tokenizer, tmp_path / "saved")
    assert "quantization_config" not in (tmp_path / "saved" / "config.json").read_text()
    saved = make_learner(load_policy(str(tmp_path / "saved"), dtype="float32", device=CPU))
    assert learner.token_logprobs(ids) == pytest.approx(saved.token_logprobs(ids), abs=1e-4)
    assert learner.token_logprobs(ids) != pytest.approx(first, abs=1e-2)

    resumed = quantized()
    resumed.load_state_dict(state)
    resumed.update(samples)
    for (key, left), (_, right) in zip(learner.named_weights(), resumed.named_weights(), strict=True):
        assert torch.equal(left, right), key
