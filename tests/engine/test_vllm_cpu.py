"""vLLM on the CPU with the kernels of its extension and seeds drawn ahead: the same numbers as without."""

import gc
import warnings
from types import SimpleNamespace

import pytest
import torch

from verl_lite.engine.vllm_cpu import PROVIDER, SEEDS_AHEAD, SeedStreams, draw_seeds_ahead, use_kernels


def generators(*seeds: int) -> dict[int, torch.Generator]:
    return {row: torch.Generator().manual_seed(seed) for row, seed in enumerate(seeds)}


def one_by_one(generator: torch.Generator, count: int) -> list[int]:
    return [int(torch.randint(0, 2**31, (1,), generator=generator)) for _ in range(count)]


def test_seeds_drawn_ahead_are_those_drawn_one_by_one() -> None:
    streams, mine, theirs = SeedStreams(), generators(3, 4), generators(3, 4)
    draws = [streams.draw(2, mine).tolist() for _ in range(2 * SEEDS_AHEAD + 1)]
    for row in (0, 1):
        assert [draw[row] for draw in draws] == one_by_one(theirs[row], len(draws))


def test_rows_come_and_go() -> None:
    streams, (first, second) = SeedStreams(), generators(3, 4).values()
    assert streams.draw(3, {2: first})[2] == one_by_one(generators(3)[0], 1)[0]
    drawn = streams.draw(2, {0: second, 1: first})  # the sequence moved to another row
    assert drawn.tolist() == [one_by_one(generators(4)[0], 1)[0], one_by_one(generators(3)[0], 2)[1]]
    del first
    gc.collect()
    assert len(streams._ahead) == 1, "seeds of a sequence that ended are kept"


def test_rows_without_a_seed_follow_torch_s_own() -> None:
    torch.manual_seed(7)
    drawn = SeedStreams().draw(4, {})
    torch.manual_seed(7)
    assert drawn.equal(torch.randint(0, 2**31, (4,)))


@pytest.fixture(scope="module")
def kernels() -> None:
    """They are registered with vLLM's CPU build."""
    import verl_lite.engine.vllm_engine  # noqa: F401  (sets the environment that vLLM reads on import)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("vllm")
        from vllm.model_executor.layers import layernorm  # noqa: F401  (loads the kernels)
        from vllm.platforms import current_platform
        from vllm.v1.sample.ops import topk_topp_sampler  # noqa: F401

    if not current_platform.is_cpu():
        pytest.skip("vLLM is not its CPU build")
    use_kernels()


@pytest.mark.e2e
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_compute_what_vllm_computes_without_them(kernels: None, dtype: torch.dtype) -> None:
    from vllm import ir
    from vllm.model_executor.custom_op import op_registry_oot

    torch.manual_seed(0)
    x, residual = torch.randn(2, 12, 64).to(dtype)
    weight = torch.rand(64).to(dtype)
    norms = ir.ops.rms_norm.impls
    parts = x[:, :32].unflatten(1, (2, 16))  # as queries of several heads
    for arguments in ((x, weight, 1e-6), (parts, weight[:16], 1e-6)):
        assert norms[PROVIDER].supports_args(*arguments)
        torch.testing.assert_close(norms[PROVIDER].impl_fn(*arguments), norms["native"].impl_fn(*arguments))
    assert not norms[PROVIDER].supports_args(x[:, :24], weight[:24], 1e-6), "not a whole number of registers"
    adds = ir.ops.fused_add_rms_norm.impls
    expected = adds["native"].impl_fn(x, residual, weight, 1e-6)
    assert adds[PROVIDER].supports_args(x, residual, weight, 1e-6)
    for got, want in zip(
        adds[PROVIDER].impl_fn(x.clone(), residual.clone(), weight, 1e-6), expected, strict=True
    ):
        torch.testing.assert_close(got, want)
    swiglu = op_registry_oot["SiluAndMul"]
    torch.testing.assert_close(swiglu.forward_cpu(None, x), swiglu.forward_native(x))


@pytest.mark.e2e
def test_the_sampler_draws_the_same_tokens(kernels: None) -> None:
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    plain, ahead = TopKTopPSampler("processed_logprobs"), TopKTopPSampler("processed_logprobs")
    draw_seeds_ahead(
        SimpleNamespace(model_runner=SimpleNamespace(sampler=SimpleNamespace(topk_topp_sampler=ahead)))
    )
    mine, theirs = generators(3, 4, 5), generators(3, 4, 5)
    torch.manual_seed(0)
    top_p = torch.tensor([0.9, 1.0, 0.5])
    for p in (None, top_p, None):
        logits = torch.randn(3, 40)
        tokens, logprobs = ahead(logits.clone(), mine, None, p)
        expected, expected_logprobs = plain(logits.clone(), theirs, None, p)
        assert tokens.tolist() == expected.tolist()
        assert logprobs.equal(expected_logprobs)
