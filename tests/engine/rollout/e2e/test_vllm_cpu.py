"""vLLM on the CPU with the kernels of its extension: the same numbers as without."""

import warnings

import pytest
import torch

from verl_lite.engine.rollout import PROVIDER, use_kernels
from verl_lite.engine.rollout.vllm_cpu import use_router_bias


@pytest.fixture(scope="module")
def kernels() -> None:
    """They are registered with vLLM's CPU build."""
    import verl_lite.engine.rollout.vllm_engine  # noqa: F401  (sets the environment that vLLM reads on import)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("vllm")
        from vllm.model_executor.layers import layernorm  # noqa: F401  (loads the kernels)
        from vllm.platforms import current_platform

        if not current_platform.is_cpu():
            pytest.skip("vLLM is not its CPU build")
        use_kernels()


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


def test_routers_choose_by_their_bias_and_weigh_without_it(kernels: None) -> None:
    """Softmax of (2, 1, 0) is (0.665, 0.245, 0.090); with a bias of 0.5 the third comes before the second."""
    from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter

    runner = torch.nn.Module()
    runner.router = CPURouter(2, 3, e_score_correction_bias=torch.tensor([0.0, 0.0, 0.5]))  # type: ignore[assignment]
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    for is_repaired, chosen in ((False, [0, 1]), (True, [0, 2])):
        if is_repaired:
            use_router_bias(runner)
        weights, ids = runner.router._compute_routing(torch.zeros(1, 4), logits, None)  # type: ignore[union-attr, operator]
        order = ids[0].argsort()
        assert ids[0][order].tolist() == chosen
    # renormalised over the two: e^2 / (e^2 + 1)
    torch.testing.assert_close(weights[0][order], torch.tensor([0.880797, 0.119203]))
