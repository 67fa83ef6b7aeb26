"""Weights under the names of their files, which samplers read.

transformers may hold a model in another form than its files have: the experts of a layer in one tensor, parts
under other names, the text model of a class that reads images alone. `save_pretrained` writes the files' form
again; vLLM's loaders know no other.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

import torch
from torch import Tensor, nn

from verl_lite.engine.model.weights import base_model


def in_checkpoint_format(
    model: nn.Module, weights: Iterable[tuple[str, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    """`weights`, named as in `model`, under the names and in the shapes that `save_pretrained` writes.

    Converted layer by layer, so at most one layer is held at a time.
    """
    from transformers.core_model_loading import revert_weight_conversion

    causal = base_model(model)
    for _, layer in groupby(weights, key=lambda weight: _layer_of(weight[0])):
        yield from revert_weight_conversion(causal, dict(layer)).items()


def name_in_checkpoint(model: nn.Module, name: str) -> str:
    """The name that the files have for the weight that `model` calls `name`, where it is only renamed."""
    from transformers.core_model_loading import revert_weight_conversion

    (found,) = revert_weight_conversion(base_model(model), {name: torch.zeros(1)})
    return str(found)


def _layer_of(name: str) -> str:
    """`model.layers.3` of `model.layers.3.mlp.up_proj.weight`; the name itself outside of layers."""
    parts = name.split(".")
    numbers = [at for at, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else name
