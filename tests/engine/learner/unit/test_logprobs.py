"""Tiled log-probabilities and entropy against the full softmax, values and gradients."""

import pytest
import torch

from verl_lite.engine.learner import (
    LogitRule,
    logprobs as module,
    token_logprobs,
    token_logprobs_and_entropy,
)


def full(hidden, weight, targets, temperature):
    logp = (hidden @ weight.T / temperature).log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(1, targets[:, None]).squeeze(1), entropy


def inputs(N=7, D=5, V=1000, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator, dtype=dtype) * scale
    weight = torch.randn(V, D, generator=generator, dtype=dtype)
    targets = torch.randint(0, V, (N,), generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), targets


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_equal_to_the_full_softmax(temperature, scale):
    """V=1000 is four tiles of 256, the last one cut; scale 60 makes logits of several hundred."""
    hidden, weight, targets = inputs(scale=scale)
    targets[:4] = torch.tensor([0, 255, 256, 999])
    mine = token_logprobs_and_entropy(hidden, weight, targets, temperature=temperature, tile_mb=0)
    grad = torch.autograd.grad((mine[0] * 0.3 - mine[1] * 0.2).sum(), (hidden, weight))
    expected = full(hidden, weight, targets, temperature)
    expected_grad = torch.autograd.grad((expected[0] * 0.3 - expected[1] * 0.2).sum(), (hidden, weight))
    for left, right in zip((*mine, *grad), (*expected, *expected_grad), strict=True):
        torch.testing.assert_close(left, right, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("rule", [LogitRule(scale=0.125), LogitRule(cap=3.0), LogitRule(scale=2.5, cap=1.5)])
def test_heads_with_a_bias_a_scale_and_a_soft_cap(rule, biased, temperature):
    hidden, weight, targets = inputs()
    targets[:4] = torch.tensor([0, 255, 256, 999])
    bias = torch.linspace(-2, 3, 1000, dtype=torch.float64).requires_grad_() if biased else None
    inner = [hidden, weight, *([bias] if biased else [])]

    def gradients(logp, entropy):
        return torch.autograd.grad((logp * 0.3 - entropy * 0.2).sum(), inner)

    mine = token_logprobs_and_entropy(
        hidden, weight, targets, bias_V=bias, rule=rule, temperature=temperature, tile_mb=0
    )
    logits = (torch.nn.functional.linear(hidden, weight, bias) * rule.scale) / temperature
    if rule.cap is not None:
        logits = rule.cap / temperature * torch.tanh(logits * temperature / rule.cap)
    logp = logits.log_softmax(-1)
    expected = logp.gather(1, targets[:, None]).squeeze(1), -(logp.exp() * logp).sum(-1)
    for left, right in zip((*mine, *gradients(*mine)), (*expected, *gradients(*expected)), strict=True):
        torch.testing.assert_close(left, right, atol=1e-10, rtol=1e-9)


def test_gradients_by_finite_differences():
    hidden, weight, targets = inputs(N=3, D=4, V=300)

    def run(h, w):
        return token_logprobs_and_entropy(h, w, targets, temperature=1.3, tile_mb=0)

    assert torch.autograd.gradcheck(run, (hidden, weight))


def test_only_what_is_asked_for_gets_a_gradient():
    hidden, weight, targets = inputs()
    logp, _ = token_logprobs_and_entropy(hidden, weight.detach(), targets)
    logp.sum().backward()
    assert hidden.grad is not None
    hidden, weight, targets = inputs()
    logp, _ = token_logprobs_and_entropy(hidden.detach(), weight, targets)
    logp.sum().backward()
    assert weight.grad is not None


def test_no_piece_of_logits_is_larger_than_a_tile(monkeypatch):
    pieces = []
    inner = module._tile

    def spying(*args):
        tile = inner(*args)
        pieces.append(tile.products_Nv.numel() * tile.products_Nv.element_size())
        return tile

    monkeypatch.setattr(module, "_tile", spying)
    hidden, weight, targets = inputs(N=64, D=8, V=20_000, dtype=torch.float32)
    token_logprobs_and_entropy(hidden, weight, targets, tile_mb=1)[0].sum().backward()
    assert len(pieces) == 2 * 5
    assert max(pieces) <= 2**20
    assert max(pieces) > 2**19


def test_bfloat16_gradients_are_no_worse_than_the_full_logits_path():
    """Tiles round each partial product; the whole path rounds logits, softmax and product."""
    hidden, weight, targets = inputs(N=256, D=64, V=4096, scale=0.3, dtype=torch.float32)
    exact = torch.autograd.grad(full(hidden, weight, targets, 1.0)[0].sum(), (hidden, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tiled = token_logprobs_and_entropy(hidden, weight, targets, tile_mb=0)[0].sum()
        logits = torch.nn.functional.linear(hidden, weight)
        whole = logits.float().log_softmax(-1).gather(1, targets[:, None]).sum()
    mine = torch.autograd.grad(tiled, (hidden, weight))
    theirs = torch.autograd.grad(whole, (hidden, weight))
    for name, best, ours, other in zip(("hidden", "weight"), exact, mine, theirs, strict=True):
        assert float((ours - best).norm()) <= 1.1 * float((other - best).norm()), name
        assert abs(float((ours - best).mean() / best.abs().mean())) < 1e-3, f"{name} is biased"


def test_without_entropy_the_same_logprobs_and_gradients():
    hidden, weight, targets = inputs()
    alone = token_logprobs(hidden, weight, targets, temperature=0.7, tile_mb=0)
    both, _ = token_logprobs_and_entropy(hidden, weight, targets, temperature=0.7, tile_mb=0)
    assert torch.equal(alone, both)
    mine, theirs = (torch.autograd.grad(one.sum(), (hidden, weight)) for one in (alone, both))
    assert all(torch.equal(left, right) for left, right in zip(mine, theirs, strict=True))


def test_a_gpu_never_waits_for_the_host_between_tiles(waits):
    hidden, weight, targets = inputs()
    with waits:
        logp, entropy = token_logprobs_and_entropy(hidden, weight, targets, tile_mb=0)
        (logp.sum() - 0.1 * entropy.sum()).backward()
        assert waits.seen == []
        float(logp.detach().sum())  # and the hook sees one that waits
    assert waits.seen == ["_local_scalar_dense"]
