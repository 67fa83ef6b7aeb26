"""Tiny random models of the decoder families in transformers, to test and measure other architectures with.

Weights are drawn so that every part counts: projections are far from zero, and norms, biases and router
biases are moved from where they start.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from verl_lite.engine.model.tiny import build_tiny_tokenizer
from verl_lite.engine.testing.families import ABSENT, DENSE, VOCAB, Family
from verl_lite.engine.testing.mixtures import EXPERTS, MIXTURES
from verl_lite.engine.types import PreTrainedModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FAMILIES: Mapping[str, Family] = {**DENSE, **MIXTURES}
_PER_LAYER = ("layer_types", "layers_block_type", "block_types")  # options with an item per layer
# vLLM reads grouped heads from the config of a class that has none, and computes another model
_WHERE_KNOWN = {*EXPERTS, "num_key_value_heads"}
_SPREAD = 0.2  # of what is added to norms, biases and buffers
_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def family_config(name: str) -> "PreTrainedConfig":
    """The tiny config of FAMILIES[`name`]."""
    from transformers import AutoConfig

    family = FAMILIES[name]
    text = AutoConfig.for_model(family.model_type).get_text_config()
    if family.text is None:
        return AutoConfig.for_model(family.model_type, **_sized(family.options, text))
    text = type(text)(**_sized(family.text, text))
    return AutoConfig.for_model(family.model_type, text_config=text.to_dict(), **family.options)


def _sized(options: Mapping[str, Any], known: "PreTrainedConfig") -> dict[str, Any]:
    num_layers = next((len(options[name]) for name in _PER_LAYER if name in options), 2)
    return {
        name: value
        for name, value in {**_SIZES, "num_hidden_layers": num_layers, **options}.items()
        if value is not ABSENT and (name not in _WHERE_KNOWN or hasattr(known, name))
    }


@torch.no_grad()
def family_model(name: str, *, seed: int = 0) -> PreTrainedModel:
    """A random model of the family in float32, as its folder on the hub has it: with towers for images."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    loader: Any = AutoModelForCausalLM if FAMILIES[name].text is None else AutoModelForImageTextToText
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = loader.from_config(family_config(name), dtype=torch.float32)
        for tensor in model.state_dict().values():
            if tensor.ndim < 2 and tensor.is_floating_point():
                tensor.add_(_SPREAD * torch.randn_like(tensor))
    return model.eval()


def write_family(name: str, folder: Path, *, seed: int = 0) -> None:
    """Write the family's random model, with the tiny tokenizer, as a Hugging Face folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    family_model(name, seed=seed).save_pretrained(folder)
    build_tiny_tokenizer().save_pretrained(folder)
