"""The policy's weights as samplers take them: Hugging Face names, full tensors, adapters merged in."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.model.quantization import dequantized

__all__ = ["base_model", "float32_master_weights", "named_weights", "whole"]


def base_model(model: Any) -> Any:
    """The transformers causal model itself, also under PEFT adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def float32_master_weights(model: nn.Module) -> None:
    """Trainable weights in float32 whatever the checkpoint held; frozen ones keep their dtype."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor, gathered where it is sharded over ranks: then every rank must ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, full tensor) of every weight of the base model; a LoRA layer gives its merged weight.

    A layer that PEFT trains in full beside the adapters (a classifier's head) gives its trained weight.
    Of a model sharded over ranks, one tensor at a time is gathered; every rank goes through all of it.
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
        tensor = whole(dequantized(parameter))
        layer = merged.get(name)
        if layer is not None:
            for adapter in layer.active_adapters:
                tensor = tensor + whole(layer.get_delta_weight(adapter).detach()).to(tensor.dtype)
        yield name.replace(".base_layer", "").replace(".modules_to_save.default", ""), tensor
