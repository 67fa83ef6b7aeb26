"""LoRA through PEFT: adapters on a frozen base, which doubles as the KL reference."""

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.config.learner import LoraConfig
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.model.checkpoint_names import name_in_checkpoint
from verl_lite.engine.model.weights import base_model, full_tensor
from verl_lite.errors import ConfigError

PEFT_PREFIX = "base_model.model."
_READ_PAST = re.compile(r"self\.(\w+)\.weight\b(?!\.(?:dtype|device|shape)|\[)")


def add_adapters(model: nn.Module, config: LoraConfig | None, *, task_type: str = "CAUSAL_LM") -> nn.Module:
    """Add the adapters to `model`; unchanged for None or if it has adapters already.

    `task_type` is PEFT's: with "SEQ_CLS" the classification head is trained in full. "all-linear" leaves out
    layers that cannot be adapted; raises ConfigError if other `target_modules` name one.
    """
    if config is None or hasattr(model, "disable_adapter"):
        return model
    if config.quantize and not getattr(model, "is_loaded_in_4bit", False):
        raise ValueError("lora.quantize needs a base in 4 bits: load_policy(..., quantize=True)")
    import peft

    unfit = _unfit_layers(model)
    target: Any = config.target_modules
    adapters = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=target if isinstance(target, str) else list(target),
        exclude_modules=sorted(unfit) if target == "all-linear" and unfit else None,
        task_type=task_type,
    )
    try:
        with warnings.catch_warnings():
            # about PEFT's own patterns for experts, and what it sets right for GPT-2's transposed layers
            for message in (r"The following (rank|alpha)_pattern keys did not", "fan_in_fan_out is set to"):
                warnings.filterwarnings("ignore", message=message)
            wrapped: nn.Module = peft.get_peft_model(model, adapters)
    except ValueError as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(f"learner.lora with target_modules={target!r}: {first}") from error
    _refuse_adapters_on(unfit, wrapped)
    return wrapped


def _unfit_layers(model: nn.Module) -> dict[str, str]:
    """Layers with adapters that a forward pass would miss or one weight could not hold: why, by name."""
    unfit: dict[str, str] = {}
    read_past = {kind: _children_read_past(kind) for kind in {type(part) for part in model.modules()}}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    for shared in names.values():
        for name in shared if len(shared) > 1 else ():
            unfit[name] = f"{' and '.join(one for one in shared if one != name)} has the same weight"
    for name, module in model.named_modules():
        if type(module).__module__.startswith("transformers.") and not _is_product(module):
            unfit[name] = f"{type(module).__name__} returns more than a product with its weight"
        for child in read_past[type(module)]:
            unfit[f"{name}.{child}"] = f"{type(module).__name__} reads its weight past the adapter"
        if module is head:
            unfit[name] = "log-probabilities are computed from its weight, past the adapter"
    return unfit


def _children_read_past(kind: type[nn.Module]) -> frozenset[str]:
    """The modules whose weight the code of a class of transformers reads, instead of calling them."""
    if not kind.__module__.startswith("transformers."):
        return frozenset()
    methods = (method for name, method in inspect.getmembers(kind, inspect.isfunction) if name != "__init__")
    return frozenset(child for method in methods for child in _READ_PAST.findall(inspect.getsource(method)))


@torch.no_grad()
def _is_product(module: nn.Module) -> bool:
    """False for a linear layer with another forward pass, such as a router that returns scores."""
    if not isinstance(module, nn.Linear) or type(module).forward is nn.Linear.forward:
        return True
    x = torch.linspace(-1, 1, 2 * module.in_features).view(2, -1).to(module.weight)
    with torch.random.fork_rng(devices=[]):
        found = module(x)
    product = nn.functional.linear(x, module.weight, module.bias)
    return isinstance(found, Tensor) and found.shape == product.shape and torch.allclose(found, product)


def _refuse_adapters_on(unfit: Mapping[str, str], wrapped: nn.Module) -> None:
    for name, module in base_model(wrapped).named_modules():
        if hasattr(module, "get_delta_weight") and name in unfit:
            raise ConfigError(
                f"learner.lora.target_modules adapts {name}, which cannot be adapted: {unfit[name]}. Leave "
                "it out, or set target_modules: all-linear, which does"
            )


def adapter_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(PEFT name, full tensor) of the adapters, for samplers that load only those.

    Layers have the names of the checkpoint format, which samplers know.
    """
    import peft

    for name, tensor in peft.get_peft_model_state_dict(model).items():
        layer, _, rest = name.removeprefix(PEFT_PREFIX).partition(".lora_")
        known = name_in_checkpoint(model, f"{layer}.weight").removesuffix(".weight")
        yield f"{PEFT_PREFIX}{known}.lora_{rest}", full_tensor(tensor)


def adapters_to_sync(config: TrainConfig) -> LoraConfig | None:
    """The config of adapters to sync to vLLM; None to sync merged weights.

    `auto` merges on the CPU, where vLLM would copy the adapters for every token.
    """
    is_wanted = config.rollout.lora_sync == "adapters" or (
        config.rollout.lora_sync == "auto" and torch.cuda.is_available()
    )
    return config.learner.lora if config.steps and is_wanted and not config.reason_to_merge else None
