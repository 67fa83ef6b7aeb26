"""LoRA through PEFT: adapters on a frozen base, which doubles as the KL reference."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.config.algorithm import LoraConfig
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.model.weights import full_tensor
from verl_lite.engine.types import PreTrainedModel


def add_adapters(model: nn.Module, config: LoraConfig | None, *, task_type: str = "CAUSAL_LM") -> nn.Module:
    """Add the adapters to `model`; unchanged for None or if it has adapters already.

    `task_type` is PEFT's: with "SEQ_CLS" the classification head is trained in full.
    """
    if config is None or hasattr(model, "disable_adapter"):
        return model
    if config.quantize and not getattr(model, "is_loaded_in_4bit", False):
        raise ValueError("lora.quantize needs a base in 4 bits: load_policy(..., quantize=True)")
    import peft

    target: Any = config.target_modules
    adapters = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=target if isinstance(target, str) else list(target),
        task_type=task_type,
    )
    return peft.get_peft_model(model, adapters)  # type: ignore[no-any-return]


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """The plain model with its adapters merged into the weights."""
    return model.merge_and_unload()


def adapter_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(PEFT name, full tensor) of the adapters, for samplers that load only those."""
    import peft

    for name, tensor in peft.get_peft_model_state_dict(model).items():
        yield name, full_tensor(tensor)


def adapters_to_sync(config: TrainConfig) -> LoraConfig | None:
    """The config of adapters to sync to vLLM; None to sync merged weights.

    `auto` merges on the CPU, where vLLM would copy the adapters for every token.
    """
    is_wanted = config.rollout.lora_sync == "adapters" or (
        config.rollout.lora_sync == "auto" and torch.cuda.is_available()
    )
    return config.learner.lora if config.steps and is_wanted and not config.reason_to_merge else None
