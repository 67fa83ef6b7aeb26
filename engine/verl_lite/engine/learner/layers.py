"""How decoder layers run: compiled, recomputed in the backward pass, their inputs kept on the CPU."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.learner.backbone import is_checkpointed_layer
from verl_lite.engine.types import PreTrainedModel

BACKEND = "inductor"
MAX_VARIANTS = 64  # of one compiled layer: with and without gradients, by dtype, by kind of layer
MIN_OFFLOADED_BYTES = 2**20
# results that selective checkpointing keeps: matrix products and attention take most of a layer's time
_KEPT = (
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::_flash_attention_forward",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "torch_attn::_varlen_attn",
    "flash_attn::_flash_attn_varlen_forward",
)


def prepare_layers(model: PreTrainedModel, config: LearnerConfig, device: torch.device) -> None:
    """Apply `config`'s gradient_checkpointing and compile to the layers of `model`."""
    if config.gradient_checkpointing:
        options: dict[str, Any] = {"use_reentrant": False}
        if config.gradient_checkpointing == "selective":
            options["context_fn"] = _selective_contexts
        model.gradient_checkpointing_enable(options)
    if config.compiles(on_gpu=device.type == "cuda"):
        _allow_variants()
        for layer in model.modules():
            if is_checkpointed_layer(layer):
                layer.compile(dynamic=True, backend=BACKEND)


def _allow_variants() -> None:
    settings: Any = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, MAX_VARIANTS)
    settings.suppress_errors = True  # a layer that cannot be compiled warns and runs as it is


def _selective_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

    def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        kept = op.name().partition(".")[0] in _KEPT
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    found: tuple[Any, Any] = create_selective_checkpoint_contexts(policy)  # type: ignore[no-untyped-call]
    return found


def keep_activations(config: LearnerConfig, device: torch.device) -> AbstractContextManager[Any]:
    """Inside, what layers save for the backward pass is kept where `config` says."""
    if not config.offload_activations or not torch.is_grad_enabled():
        return nullcontext()
    return _offloaded(device)


@contextmanager
def _offloaded(device: torch.device) -> Iterator[None]:
    """Inside, large saved tensors are copied to pinned CPU memory by a stream of their own, and back."""
    stream: torch.cuda.Stream | None = None
    if device.type == "cuda":
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.autograd.graph.saved_tensors_hooks(partial(_to_host, stream=stream), _to_device):
        yield


def _to_host(tensor: Tensor, *, stream: "torch.cuda.Stream | None") -> Any:
    is_small = tensor.numel() * tensor.element_size() < MIN_OFFLOADED_BYTES
    if is_small or isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
        return tensor
    host = torch.empty_like(tensor, device="cpu", requires_grad=False, pin_memory=stream is not None)
    if stream is None:
        host.copy_(tensor)
        return tensor.device, host, None
    stream.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(stream):
        host.copy_(tensor, non_blocking=True)
        arrived = stream.record_event()
    tensor.record_stream(stream)  # its memory is not reused before the copy is done
    return tensor.device, host, arrived


def _to_device(packed: Any) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    device, host, arrived = packed
    if arrived is not None:
        torch.cuda.current_stream(device).wait_event(arrived)
    found: Tensor = host.to(device, non_blocking=True)
    return found
