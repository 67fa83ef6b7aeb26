"""The part of a transformers model below its head: how it is found, run and put into training mode.

Shapes: N completion tokens of a micro-batch, D hidden.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.learner.attention import (
    ATTENTION_NAME,
    attention_metadata,
    packed_forward,
    register_attention,
)
from verl_lite.engine.learner.packing import PackedBatch
from verl_lite.engine.types import PreTrainedModel
from verl_lite.errors import ConfigError


def backbone_of(model: PreTrainedModel) -> nn.Module:
    """The model below the head, by whatever name its class has for it. Raises ConfigError without one."""
    backbone: nn.Module = model.base_model
    if backbone is model:
        backbone = getattr(model, "model", model)
    if backbone is model:
        raise ConfigError(
            f"{type(model).__name__} names no backbone (base_model_prefix={model.base_model_prefix!r}), so "
            "the learner cannot read its hidden states: use a causal language model of transformers"
        )
    return backbone


def set_attention(model: PreTrainedModel, name: str) -> bool:
    """Let the model attend by the implementation `name`; False if its class has no such choice."""
    if name == ATTENTION_NAME:
        if not getattr(model, "_supports_attention_backend", False):
            return False
        register_attention()
    can_set = getattr(model, "_can_set_attn_implementation", lambda: False)
    if not can_set():
        return False
    model.set_attn_implementation(name)
    return True


def hidden_states(backbone: nn.Module, batch: PackedBatch, device: torch.device) -> Tensor:
    """hidden_ND: the last hidden states that predict the batch's completion tokens."""
    metadata = attention_metadata(batch.segments, device) if batch.segments else None
    options: dict[str, Any] = {"packed_metadata": metadata} if metadata is not None else {}
    if metadata is not None or "position_ids" in inspect.signature(backbone.forward).parameters:
        options["position_ids"] = batch.position_ids_RL.to(device)
    with packed_forward() if metadata is not None else nullcontext():
        output = backbone(input_ids=batch.input_ids_RL.to(device), use_cache=False, **options)
    return output.last_hidden_state.flatten(0, 1)[batch.predict_from_N.to(device)]  # type: ignore[no-any-return]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode; afterwards its modes and torch's generators are as before."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training


def begin_training(model: nn.Module, *, dropout: bool) -> None:
    """Training mode; without `dropout`, as in evaluation but with gradient checkpointing.

    In evaluation mode no module drops anything, whatever its config says. Checkpointed layers need training
    mode to be recomputed; what they drop by themselves is switched off.
    """
    model.train(dropout)
    if dropout:
        return
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False) and _is_checkpointed_layer(module):
            module.training = True
            for name, value in vars(module).items():
                if "drop" in name and isinstance(value, float):
                    setattr(module, name, 0.0)


def _is_checkpointed_layer(module: nn.Module) -> bool:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return isinstance(module, GradientCheckpointingLayer)
