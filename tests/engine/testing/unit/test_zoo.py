"""The tiny random models: every weight counts, and windows cut short sequences."""

from typing import Any

import pytest
import torch

from verl_lite.engine.testing import family_model

IDS_BT = torch.randint(6, 105, (2, 40), generator=torch.Generator().manual_seed(0))
NOT_TEXT = ("vision", "visual", "projector")


def logprobs(model: Any, ids_BT: torch.Tensor = IDS_BT) -> torch.Tensor:
    return model(input_ids=ids_BT).logits.log_softmax(-1)


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "gpt2", "deepseek-v3", "gpt-oss", "qwen3_5", "mamba2"])
def test_every_weight_and_buffer_of_the_text_model_moves_its_log_probabilities(name: str) -> None:
    model = family_model(name)
    before = logprobs(model)
    before[:, :-1].gather(-1, IDS_BT[:, 1:, None]).mean().backward()
    trained = dict(model.named_parameters(remove_duplicate=False))
    dead = [
        key
        for key, parameter in trained.items()
        if not any(part in key for part in NOT_TEXT)
        and (parameter.grad is None or parameter.grad.abs().max() < 1e-9)
    ]
    assert not dead
    for key, tensor in model.state_dict().items():
        if key in trained or not tensor.is_floating_point():
            continue
        with torch.no_grad():
            tensor.add_(torch.linspace(-1, 1, tensor.numel()).view_as(tensor))
            assert (logprobs(model) - before).abs().max() > 1e-3, key


@pytest.mark.parametrize(
    ("name", "furthest"), [("mistral-window", 14), ("phi3-window", 14), ("llama", 39), ("qwen3_5", 39)]
)
def test_two_layers_with_windows_of_8_see_14_tokens_back(name: str, furthest: int) -> None:
    model = family_model(name)
    changed_BT = IDS_BT.clone()
    changed_BT[:, 0] = IDS_BT[:, 0] % 98 + 7
    with torch.no_grad():
        moved_T = (logprobs(model, changed_BT) - logprobs(model)).abs().amax((0, 2))
    assert int((moved_T > 1e-4).nonzero().max()) == furthest


def test_the_seed_decides_the_weights() -> None:
    first, same, other = (family_model("llama", seed=seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
