"""Kernels that vLLM's CPU build has but does not use; for the version that the extra `cpu` pins.

It computes RMSNorm and SwiGLU with several torch calls each, although its extension has kernels for both.
They are registered through vLLM's extension points. So are repairs of what 0.32.0 gets wrong: when weights
are loaded again, experts stay in the layout of the files, and tied output heads keep a packed copy of the old
embeddings; routers without groups of experts ignore their bias (ERNIE-4.5-MoE).
"""

from typing import Any

import torch
from torch import Tensor

PROVIDER = "verl_lite_cpu"
LANES = 16  # floats per AVX-512 register: the kernels need full registers


def use_kernels() -> dict[str, Any]:
    """Register the kernels, before the model is created. Returns arguments for `LLM`."""
    from vllm import ir
    from vllm.model_executor.custom_op import op_registry_oot
    from vllm.model_executor.layers.activation import SiluAndMul
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    if PROVIDER not in ir.ops.rms_norm.impls:
        ir.ops.rms_norm.register_impl(PROVIDER, supports_args=_norm_fits)(_rms_norm)
        ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=_add_norm_fits, inplace=True)(
            _add_rms_norm
        )
    if "SiluAndMul" not in op_registry_oot:

        class KernelSiluAndMul(SiluAndMul):  # type: ignore[misc]
            def forward_cpu(self, x: Tensor) -> Tensor:
                return _silu_and_mul(x)

        SiluAndMul.register_oot(KernelSiluAndMul, name="SiluAndMul")
    if "UnquantizedFusedMoEMethod" not in op_registry_oot:
        UnquantizedFusedMoEMethod.register_oot(_repacked_experts(), name="UnquantizedFusedMoEMethod")
    return {"ir_op_priority": {name: [PROVIDER, "native"] for name in ("rms_norm", "fused_add_rms_norm")}}


def _repacked_experts() -> type[Any]:
    """The method of unquantised experts that packs them for its kernel at every load, not the first alone."""
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    class RepackedExperts(UnquantizedFusedMoEMethod):  # type: ignore[misc]
        def _setup_kernel(self, layer: Any, w13: Tensor, w2: Tensor) -> None:
            is_update = self.moe_kernel is not None
            super()._setup_kernel(layer, w13, w2)
            if is_update:
                self.moe_kernel.fused_experts.process_weights_after_loading(layer)

    return RepackedExperts


def repack_heads(model: Any) -> None:
    """Pack the output heads again, for `LLM.apply_model`: a tied one is not loaded on its own."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def use_router_bias(model: Any) -> None:
    """Have routers choose experts by their bias too, for `LLM.apply_model`: with groups, CPURouter does.

    One group of all experts is none.
    """
    from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter

    for module in model.modules():
        router = getattr(module, "router", None)
        if (
            isinstance(router, CPURouter)
            and router.e_score_correction_bias is not None
            and router.scoring_func == "softmax"
            and not router.use_grouped_topk
        ):
            router.use_grouped_topk, router.num_expert_group, router.topk_group = True, 1, 1


def _fits(x: Tensor, weight: Tensor | None, variance_size: int | None) -> bool:
    whole = variance_size is None and x.shape[-1] % LANES == 0
    return whole and weight is not None and weight.dtype == x.dtype


def _norm_fits(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    return _fits(x, weight, variance_size)


def _rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
    x = x.contiguous()  # queries and keys are slices
    normed = torch.empty_like(x)
    torch.ops._C.rms_norm(normed, x, weight, epsilon)
    return normed


def _add_norm_fits(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    return _fits(x, weight, variance_size) and x.is_contiguous() and x_residual.is_contiguous()


def _add_rms_norm(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[Tensor, Tensor]:
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)  # both in place
    return x, x_residual


def _silu_and_mul(x: Tensor) -> Tensor:
    product = torch.empty((*x.shape[:-1], x.shape[-1] // 2), dtype=x.dtype)
    torch.ops._C.silu_and_mul(product, x)
    return product
