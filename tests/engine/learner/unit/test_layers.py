"""How decoder layers run changes what is kept and recomputed, never the result."""

import copy

import pytest
import torch

from verl_lite.engine.config import LearnerConfig, LoraConfig
from verl_lite.engine.learner import Policy, layers, policy as module
from verl_lite.engine.model import add_adapters


def results(model, samples, **options):
    policy = Policy(model, LearnerConfig(**options), pad_token_id=0)
    policy.begin_training()
    values, total = [], torch.zeros(())
    for batch in policy.micro_batches(samples):
        logprobs_N, entropy_N = policy.logprobs_and_entropy(batch)
        values += [logprobs_N.detach(), entropy_N.detach()]
        total = total + (logprobs_N - 0.1 * entropy_N).sum()
    total.backward()
    return values, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(mine, theirs):
    for left, right in zip(mine[0], theirs[0], strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)
    assert mine[1].keys() == theirs[1].keys()
    for name in mine[1]:
        torch.testing.assert_close(mine[1][name], theirs[1][name], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "options",
    [
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": "selective"},
        {"gradient_checkpointing": True, "offload_activations": True},
        {"gradient_checkpointing": "selective", "offload_activations": True},
    ],
)
def test_checkpointing_and_offloading_change_nothing(tiny_model, make_samples, monkeypatch, dtype, options):
    monkeypatch.setattr(layers, "MIN_OFFLOADED_BYTES", 1)
    samples, model = make_samples(num_groups=2), tiny_model(torch.float32)
    plain = results(copy.deepcopy(model), samples, dtype=dtype)
    mine = results(model, samples, dtype=dtype, **options)
    for left, right in zip((*mine[0], *mine[1].values()), (*plain[0], *plain[1].values()), strict=True):
        assert torch.equal(left, right)


@pytest.fixture
def traced(monkeypatch):
    """Compiled layers without inductor: dynamo's tracing and autograd's, which is what a model can break."""
    monkeypatch.setattr(layers, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


# dynamo looks whether tensors have gradients
looks = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@looks
@pytest.mark.parametrize(("checkpointing", "with_lora"), [(False, False), (True, False), (True, True)])
def test_compiled_layers_compute_the_same(tiny_model, make_samples, traced, with_lora, checkpointing):
    samples, model = make_samples(num_groups=2), tiny_model(torch.float32)
    if with_lora:
        model = add_adapters(model, LoraConfig(rank=4))
    plain = results(copy.deepcopy(model), samples, gradient_checkpointing=checkpointing)
    assert not traced["frames"]
    mine = results(model, samples, compile=True, gradient_checkpointing=checkpointing)
    assert traced["frames"]["ok"] == traced["frames"]["total"] > 0
    assert_same(mine, plain)


@looks
def test_a_copy_of_a_compiled_model_runs_with_its_own_weights(tiny_model, make_samples, traced):
    """As the reference policy is one: it must not follow the policy."""
    samples, model = make_samples(num_groups=1), tiny_model(torch.float32)
    policy = Policy(model, LearnerConfig(compile=True), pad_token_id=0)
    before = policy.completion_logprobs(samples)
    copied = Policy(copy.deepcopy(model), LearnerConfig(compile=True), pad_token_id=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    assert policy.completion_logprobs(samples) != before
    torch.testing.assert_close(copied.completion_logprobs(samples), before, atol=1e-5, rtol=1e-5)


def test_selective_checkpointing_computes_no_product_twice(tiny_model, make_samples):
    """Counted by the operations that run in the backward pass."""

    def products(kind):
        from torch.utils._python_dispatch import TorchDispatchMode

        seen = []

        class Count(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                seen.append(func.name())
                return func(*args, **(kwargs or {}))

        policy = Policy(tiny_model(torch.float32), LearnerConfig(gradient_checkpointing=kind), pad_token_id=0)
        policy.begin_training()
        (batch,) = policy.micro_batches(make_samples(num_groups=1))
        loss = policy.logprobs(batch).sum()
        with Count():
            loss.backward()
        return sum(name in ("aten::mm", "aten::addmm") for name in seen), len(seen)

    none, every, selective = products(False), products(True), products("selective")
    assert none[0] == selective[0] < every[0]
    assert none[1] < selective[1] < every[1]


def test_activations_are_kept_on_the_cpu_only_in_training(monkeypatch):
    config = LearnerConfig(gradient_checkpointing=True, offload_activations=True)
    cpu = torch.device("cpu")
    monkeypatch.setattr(layers, "MIN_OFFLOADED_BYTES", 40)
    small, large = torch.ones(9, requires_grad=True), torch.ones(10, requires_grad=True)
    moved = []
    inner = layers._to_host
    monkeypatch.setattr(
        layers, "_to_host", lambda tensor, stream: moved.append(len(tensor)) or inner(tensor, stream=stream)
    )
    with module.keep_activations(config, cpu):
        results = [(x * 1.0).exp() for x in (small, large)]
    assert isinstance(layers._to_host(small * 1.0, stream=None), torch.Tensor)
    assert isinstance(layers._to_host(large * 1.0, stream=None), tuple)
    sum(x.sum() for x in results).backward()
    torch.testing.assert_close(large.grad, torch.full((10,), torch.e))
    assert moved[:2] == [9, 10]
    with torch.no_grad(), module.keep_activations(config, cpu):
        (large * 1.0).exp()
    assert len(moved) == 4


@pytest.mark.parametrize(
    ("options", "on_gpu", "compiles"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"compile": True}, False, True),
        ({"compile": False}, True, False),
        ({"num_ranks": 2}, True, False),
        ({"gradient_checkpointing": "selective"}, True, False),
    ],
)
def test_where_layers_are_compiled(options, on_gpu, compiles):
    assert LearnerConfig(**options).compiles(on_gpu=on_gpu) is compiles


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": True, "gradient_checkpointing": "selective"}, "compile=true hides a layer's products"),
        ({"offload_activations": True}, "set gradient_checkpointing: true too"),
    ],
)
def test_settings_that_exclude_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        LearnerConfig(**options)
