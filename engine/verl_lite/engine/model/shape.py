"""The dimensions of a model, from its configuration alone: no weights are read."""

from dataclasses import dataclass
from typing import Any

import torch

from verl_lite.engine.config.train import ModelConfig
from verl_lite.engine.model.gguf import from_pretrained
from verl_lite.engine.model.tiny import build_tiny_tokenizer, tiny_model_config
from verl_lite.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """`num_parameters` is exact for any architecture; the rest describes a decoder of the Llama kind."""

    num_parameters: int
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int

    @property
    def layer_parameters(self) -> int:
        """Parameters in the linear maps of one layer."""
        query, key = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return self.hidden_size * (2 * query + 2 * key + 3 * self.intermediate_size)

    def num_lora_parameters(self, rank: int) -> int:
        """Parameters of adapters on all linear maps of the layers: rank x (in + out) each."""
        query, key = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        hidden, mlp = self.hidden_size, self.intermediate_size
        ends = 2 * (hidden + query) + 2 * (hidden + key) + 3 * (hidden + mlp)
        return rank * ends * self.num_layers


def shape_of(config: ModelConfig) -> ModelShape:
    """The shape of the config's model. Raises DataError if its configuration cannot be read."""
    if config.tiny is not None:
        return shape_of_config(tiny_model_config(config.tiny, build_tiny_tokenizer()))
    from transformers import AutoConfig

    try:
        return shape_of_config(from_pretrained(AutoConfig, config.path))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the configuration of model.path={config.path!r}: {error}") from None


def attention_window(path: str) -> int | None:
    """The longest window of attention in the model's configuration; None if it names none, or reads all."""
    from transformers import AutoConfig

    config = from_pretrained(AutoConfig, path).get_text_config()
    kinds = getattr(config, "layer_types", None)
    if not getattr(config, "use_sliding_window", True) or (kinds and not any("sliding" in k for k in kinds)):
        return None
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_window_size", None)
    return int(window) if window else None


def shape_of_config(config: Any) -> ModelShape:
    """The shape of a transformers configuration; parameters are counted on a meta-device model."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    heads = config.num_attention_heads
    return ModelShape(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        num_heads=heads,
        num_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        intermediate_size=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
    )
