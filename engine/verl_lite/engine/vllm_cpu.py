"""Time that vLLM's CPU build leaves lying about; for the version that the extra `cpu` pins.

It takes RMSNorm and SwiGLU apart into a handful of torch calls each, although its extension has a
kernel for either, and it draws the seed of each sequence's noise alone, token by token. Here the
kernels are registered the way vLLM lets others register theirs, and the seeds of a sequence are drawn
many at a time: the same numbers in the same order, so the same tokens.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor

__all__ = ["SeedStreams", "draw_seeds_ahead", "use_kernels"]

PROVIDER = "verl_lite_cpu"
LANES = 16  # float32 numbers in a register of AVX-512: the kernels take whole ones
SEEDS_AHEAD = 32


def use_kernels() -> dict[str, Any]:
    """Register the kernels, before the model is made; returns the arguments that tell `LLM` of them."""
    from vllm import ir
    from vllm.model_executor.custom_op import op_registry_oot
    from vllm.model_executor.layers.activation import SiluAndMul

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
    return {"ir_op_priority": {name: [PROVIDER, "native"] for name in ("rms_norm", "fused_add_rms_norm")}}


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


def draw_seeds_ahead(worker: Any) -> None:
    """Have the worker's sampler take each sequence's seeds from a SeedStreams; for `LLM.collective_rpc`."""
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

    streams = SeedStreams()

    def forward(
        logits_BV: Tensor, generators: dict[int, Generator], k: Tensor | None, p: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What TopKTopPSampler.forward_cpu does for `processed_logprobs`."""
        logits_BV = apply_top_k_top_p(logits_BV, k, p)
        logprobs_BV = logits_BV.log_softmax(dim=-1, dtype=torch.float32)
        seeds_B = streams.draw(logits_BV.shape[0], generators)
        return torch.ops._C.fused_gumbel_argmax(logits_BV.float(), seeds_B), logprobs_BV

    worker.model_runner.sampler.topk_topp_sampler.forward = forward


class SeedStreams:
    """The next seed of each row's generator, as `torch.randint(0, 2**31, (1,), generator=...)` gives it."""

    def __init__(self) -> None:
        self._ahead: WeakKeyDictionary[Generator, list[int]] = WeakKeyDictionary()

    def draw(self, num_rows: int, generators: dict[int, Generator]) -> Tensor:
        """One seed a row, int64; rows without a generator get torch's own."""
        seeds_B = torch.randint(0, 2**31, (num_rows,), dtype=torch.long)
        if generators:
            seeds_B[list(generators)] = torch.tensor([self._next(one) for one in generators.values()])
        return seeds_B

    def _next(self, generator: Generator) -> int:
        ahead = self._ahead.setdefault(generator, [])
        if not ahead:
            drawn = torch.randint(0, 2**31, (SEEDS_AHEAD,), generator=generator, dtype=torch.long)
            ahead += reversed(drawn.tolist())
        return ahead.pop()
