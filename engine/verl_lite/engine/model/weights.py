"""The policy's weights as samplers load them: Hugging Face names, full tensors, adapters merged."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from verl_lite.engine.model.quantization import dequantized
from verl_lite.engine.types import PreTrainedModel


def base_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model, without its PEFT wrapper if it has one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def float32_master_weights(model: nn.Module) -> None:
    """Cast trainable 16-bit weights to float32; frozen weights keep their dtype."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def trained_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """(name, parameter) of everything that gets a gradient."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor. A sharded one is gathered: every rank must call."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, full tensor) of every weight of the base model, LoRA layers with their adapters merged in.

    Layers that PEFT trains in full (a classifier's head) yield their trained weight. A sharded model is
    gathered tensor by tensor: every rank must exhaust the iterator.
    """
    causal = base_model(model)
    merged = {
        f"{name}.base_layer.weight": module
        for name, module in causal.named_modules()
        if hasattr(module, "get_delta_weight") and hasattr(module, "base_layer")
    }
    for name, parameter in causal.named_parameters():
        if ".lora_" in name or ".original_module." in name:
            continue
        tensor = full_tensor(dequantized(parameter))
        layer = merged.get(name)
        if layer is not None:
            for adapter in layer.active_adapters:
                tensor = tensor + full_tensor(layer.get_delta_weight(adapter).detach()).to(tensor.dtype)
        yield name.replace(".base_layer", "").replace(".modules_to_save.default", ""), tensor
