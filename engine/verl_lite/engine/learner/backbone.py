"""The part of a transformers model below its head: how it is found, run and put into training mode.

Shapes: N completion tokens of a micro-batch, D hidden.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.learner.attention import ATTENTION_NAME, packed_forward, register_attention
from verl_lite.engine.learner.attention_plans import AttentionMetadata
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
    batch = batch.to(device)
    metadata = AttentionMetadata(batch.segments, device) if batch.segments else None
    options: dict[str, Any] = {"packed_metadata": metadata} if metadata is not None else {}
    if metadata is not None or "position_ids" in inspect.signature(backbone.forward).parameters:
        options["position_ids"] = batch.position_ids_RL
    with packed_forward() if metadata is not None else nullcontext():
        output = backbone(input_ids=batch.input_ids_RL, use_cache=False, **options)
    return output.last_hidden_state.flatten(0, 1)[batch.predict_from_N]  # type: ignore[no-any-return]


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

    In evaluation mode no module drops anything, whatever its config says. transformers recomputes only layers
    in training mode: those keep it until they are recomputed, and run in evaluation mode.
    """
    model.train(dropout)
    for layer in model.modules():
        if getattr(layer, "gradient_checkpointing", False) and is_checkpointed_layer(layer):
            recompute: Any = layer._gradient_checkpointing_func  # a partial of torch.utils.checkpoint
            plain = recompute.checkpoint if isinstance(recompute, _InEvaluation) else recompute
            layer._gradient_checkpointing_func = plain if dropout else _InEvaluation(layer, plain)  # type: ignore[assignment]
            layer.training = True


@dataclass(frozen=True, slots=True)
class _InEvaluation:
    """A layer's `checkpoint`, with the layer itself in evaluation mode inside."""

    layer: nn.Module
    checkpoint: Callable[..., Any]

    def __call__(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self.checkpoint(partial(self._run, function), *args, **options)

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        self.layer.training = False
        try:
            return function(*args)
        finally:
            self.layer.training = True


def is_checkpointed_layer(module: nn.Module) -> bool:
    """Whether it is a decoder layer, as transformers recomputes them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return isinstance(module, GradientCheckpointingLayer)
