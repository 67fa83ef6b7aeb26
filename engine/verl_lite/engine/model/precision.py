"""How far rounding alone moves a log-probability, by dtype, depth and spread of the logits.

A number of a floating dtype is rounded by a relative error of u / sqrt(3) on average (u: half the relative
distance between neighbours). About ROUNDINGS of them per layer, and two at the ends, add up like a random
walk in the hidden state. They reach a logit in proportion to the standard deviation of the logits, and a
log-probability is the difference of two:

    noise = u / sqrt(3) * sqrt(2 * (ROUNDINGS * layers + 2)) * spread

Of the real SmolLM2-135M (30 layers, logits of spread 2.3 to 3.5) in bfloat16 it gives 0.08 to 0.12 nats,
where 0.05 to 0.10 are measured; the largest of 39 to 63 tokens is off by up to 4.4 times as much, and by 6.5
times after eight steps of RL: a token that the policy has made very unlikely has a logit far from the others.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from verl_lite.engine.model.weights import base_model

ROUNDINGS = 4
MARGIN = 3.0  # times the noise: what two correct computations may differ by as root mean square
LARGEST = 5.0  # times that: what a single token may differ by
# Two of them in float32 differ by 1e-6 on one CPU; GPUs add TF32 and other summation orders.
LEAST_LIMIT = 1e-3


def rounding_unit(dtype: torch.dtype) -> float:
    """Half the relative distance between numbers; models in float64 compute some parts in float32."""
    return max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) / 2


def logprob_noise(dtype: torch.dtype, *, num_layers: int, spread: float) -> float:
    """The root mean square of a log-probability's rounding error, in nats; see the top of the file."""
    return rounding_unit(dtype) / math.sqrt(3) * math.sqrt(2 * (ROUNDINGS * num_layers + 2)) * spread


def weights_dtype(model: nn.Module) -> torch.dtype:
    """The least exact dtype of the weights."""
    floating = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    found: torch.dtype = max(floating, key=lambda dtype: torch.finfo(dtype).eps)
    return found


def num_layers(model: nn.Module) -> int:
    """The depth of the language model; 32 if its configuration has no name for it that is known here."""
    config = base_model(model).config.get_text_config()
    return int(getattr(config, "num_hidden_layers", 0) or 32)


def typical_difference(noise: float) -> float:
    """The root mean square of log-probability differences (nats) that `noise` explains."""
    return max(LEAST_LIMIT, MARGIN * noise)


def largest_difference(noise: float) -> float:
    """The largest of some 64 log-probability differences (nats) that `noise` explains."""
    return max(LEAST_LIMIT, LARGEST * MARGIN * noise)


@torch.no_grad()
def model_noise(model: nn.Module, token_ids: Sequence[int]) -> float:
    """`logprob_noise` of the model's own dtype on these tokens, by its own forward pass."""
    ids = torch.tensor([list(token_ids)], device=next(model.parameters()).device)
    spread = float(model(input_ids=ids, use_cache=False).logits[0].float().std(-1).mean())
    return logprob_noise(weights_dtype(model), num_layers=num_layers(model), spread=spread)
