"""The dimensions of a model, from its configuration alone: no weights are read."""

from dataclasses import dataclass
from typing import Any

import torch

from verl_lite.engine.config.model import ModelConfig
from verl_lite.engine.model.configuration import configuration_of
from verl_lite.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """`num_parameters` is exact for any architecture; the rest describes a decoder of the Llama kind."""

    num_parameters: int
    vocab_size: int
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
    """The shape of the config's model. Raises DataError if its configuration is none of a model."""
    try:
        return shape_of_config(configuration_of(config))
    except KeyError as error:  # an activation or rotary embedding that transformers does not know
        raise DataError(f"model.path={config.path!r}: transformers knows no {error} of its config") from None


def shape_of_config(config: Any) -> ModelShape:
    """The shape of a transformers configuration; parameters are counted on a meta-device model."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    heads = _first(text, "num_attention_heads") or 1
    return ModelShape(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocab_size=text.vocab_size,
        num_layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        num_heads=heads,
        num_kv_heads=_first(text, "num_key_value_heads") or heads,
        head_dim=_first(text, "head_dim") or text.hidden_size // heads,
        intermediate_size=_first(text, "intermediate_size", "ffn_hidden_size") or 4 * text.hidden_size,
    )


def _first(config: Any, *names: str) -> int:
    """The first of these numbers that the configuration has; 0 without any. Lists are by layer."""
    for name in names:
        if found := getattr(config, name, None):
            return int(max(found) if isinstance(found, list | tuple) else found)
    return 0
