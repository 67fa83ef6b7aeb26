"""The schedule by hand, clipping, offload equal to none, the nan guard."""

import copy
import math

import pytest
import torch

from verl_lite.engine.config import OptimizerConfig
from verl_lite.engine.learner import PolicyOptimizer, decay_start, learning_rate_factor
from verl_lite.engine.learner.muon import hidden_matrices
from verl_lite.errors import ConfigError


def test_warm_up_then_cosine_by_hand():
    config = OptimizerConfig(warmup_steps=2, min_lr_fraction=0.1)
    factors = [learning_rate_factor(step, config, 7) for step in range(8)]
    # warm-up 1/2, 1; then half a cosine over steps 2..6, then the floor
    middle = 0.1 + 0.9 * 0.5
    quarter = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))
    three = 0.1 + 0.9 * 0.5 * (1 + math.cos(3 * math.pi / 4))
    assert factors == pytest.approx([0.5, 1.0, 1.0, quarter, middle, three, 0.1, 0.1])


def test_linear_and_constant():
    linear = OptimizerConfig(schedule="linear", min_lr_fraction=0.0)
    assert [learning_rate_factor(step, linear, 5) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    constant = OptimizerConfig(schedule="constant", warmup_steps=1)
    assert [learning_rate_factor(step, constant, 5) for step in range(3)] == [1.0, 1.0, 1.0]


def optimizer_of(parameter, **options) -> PolicyOptimizer:
    config = OptimizerConfig(learning_rate=0.1, schedule="constant", **options)
    return PolicyOptimizer([parameter], config, total_steps=10)


def test_the_first_adamw_step_moves_by_the_learning_rate_and_decays_matrices():
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = optimizer_of(parameter, weight_decay=0.5)
    parameter.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert optimizer.step() == (pytest.approx(5.0), True)
    expected = torch.tensor([[0.85, 0.95], [0.95, 0.85]])  # 1 - lr * decay, - lr where there is a gradient
    torch.testing.assert_close(parameter.data, expected, atol=1e-6, rtol=0)
    assert parameter.grad is None


def test_clipping_scales_to_the_norm():
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = optimizer_of(parameter, max_grad_norm=1.0)
    seen = []
    optimizer._adam.step = lambda: seen.append(parameter.grad.clone())
    parameter.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    torch.testing.assert_close(seen[0], torch.tensor([0.6, 0.8]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_leave_weights_moments_and_schedule_alone(bad):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = optimizer_of(parameter)
    parameter.grad = torch.tensor([1.0, bad])
    _, finite = optimizer.step()
    assert not finite
    assert parameter.tolist() == [1.0, 1.0]
    assert optimizer.num_steps == 0
    assert parameter.grad is None


def test_offloaded_moments_change_nothing():
    steps = [torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.5]), torch.tensor([-1.0, 3.0])]
    results = []
    for offload in (False, True):
        parameter = torch.nn.Parameter(torch.ones(2))
        optimizer = optimizer_of(parameter, offload=offload)
        for gradient in steps:
            parameter.grad = gradient.clone()
            optimizer.step()
        results.append(parameter.detach())
    assert torch.equal(*results)


def test_nothing_trainable_is_refused():
    with pytest.raises(ConfigError, match="no trainable parameters"):
        PolicyOptimizer(
            [torch.nn.Parameter(torch.ones(1), requires_grad=False)], OptimizerConfig(), total_steps=1
        )


def test_warm_up_stable_decay():
    config = OptimizerConfig(schedule="wsd", warmup_steps=2, decay_fraction=0.4, min_lr_fraction=0.0)
    assert decay_start(config, 10) == 6
    factors = [learning_rate_factor(step, config, 10) for step in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0.0])


def test_muon_takes_hidden_matrices_and_adamw_the_rest(tiny_model):
    model = tiny_model(torch.float32)
    hidden = hidden_matrices(model)
    names = {name for name, p in model.named_parameters() if id(p) in hidden}
    assert "model.layers.0.self_attn.q_proj.weight" in names
    assert not {name for name in names if "embed" in name or "lm_head" in name or "norm" in name}
    config = OptimizerConfig(name="muon", learning_rate=0.1, schedule="constant", max_grad_norm=None)
    optimizer = PolicyOptimizer(model.parameters(), config, total_steps=10, hidden=hidden)
    weight = model.model.layers[0].self_attn.q_proj.weight
    before, norm_before = weight.detach().clone(), model.model.norm.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    moved = (before - weight.detach()) / (0.2 * 0.1 * math.sqrt(max(weight.shape)))
    singular = torch.linalg.svdvals(
        moved
    )  # an orthogonal matrix's are 1; five Newton-Schulz steps are near it
    assert 0.5 < float(singular.min()) < float(singular.max()) < 1.3
    # AdamW's first step moves every number by the learning rate
    assert torch.allclose((norm_before - model.model.norm.weight).abs(), torch.tensor(0.1), atol=1e-4)


def test_muon_resumes(tiny_model):
    def run(steps: int, state=None, weights=None):
        model = tiny_model(torch.float32)
        config = OptimizerConfig(name="muon", learning_rate=0.01, schedule="constant")
        optimizer = PolicyOptimizer(model.parameters(), config, total_steps=9, hidden=hidden_matrices(model))
        optimizer.init_moments()
        if state is not None:
            model.load_state_dict(weights)
            optimizer.load_state_dict(state)
        for _ in range(steps):
            for parameter in model.parameters():
                parameter.grad = parameter.detach().clone()
            optimizer.step()
        return model, optimizer

    model, optimizer = run(2)
    state = copy.deepcopy((optimizer.state_dict(), model.state_dict()))
    resumed, _ = run(1, *state)
    whole, _ = run(3)
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)
