"""The policy's weights as samplers load them: Hugging Face names, full tensors, adapters merged."""

from collections.abc import Iterator
from typing import Any

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

    Buffers that belong to the model's state, such as a router's bias, are among them. Layers that PEFT trains
    in full (a classifier's head) yield their trained weight. A sharded model is gathered tensor by tensor:
    every rank must exhaust the iterator.
    """
    causal = base_model(model)
    adapters = adapters_by_weight(causal)
    for name, parameter in causal.named_parameters():
        if ".lora_" in name or ".original_module." in name:
            continue
        tensor = full_tensor(dequantized(parameter))
        for layer in adapters.get(id(parameter), ()):
            for adapter in layer.active_adapters:
                tensor = tensor + full_tensor(layer.get_delta_weight(adapter).detach()).to(tensor.dtype)
        yield _plain_name(name), tensor
    saved = causal.state_dict().keys()
    for name, buffer in causal.named_buffers():
        if name in saved and ".lora_" not in name:
            yield _plain_name(name), full_tensor(buffer.detach())


def adapters_by_weight(causal: nn.Module) -> dict[int, list[Any]]:
    """The LoRA layers that adapt each parameter, by the parameter's id."""
    found: dict[int, list[Any]] = {}
    layer: Any  # torch types the attributes of a module as tensors
    for layer in causal.modules():
        if not (hasattr(layer, "get_delta_weight") and hasattr(layer, "get_base_layer")):
            continue
        # PEFT wraps single parameters too: the experts of a layer are one tensor, not linear layers
        base = layer.get_base_layer()
        name = getattr(layer, "parameter_name", "weight")
        found.setdefault(id(getattr(base, name)), []).append(layer)
    return found


def _plain_name(name: str) -> str:
    """The name in the model without adapters."""
    return name.replace(".base_layer", "").replace(".modules_to_save.default", "")
