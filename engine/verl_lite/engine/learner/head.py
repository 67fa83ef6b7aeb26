"""A model's output head, as the tiled log-probabilities compute it.

Between the hidden states and the logits of a causal model is a linear map, perhaps with a bias; many classes
multiply or divide by a constant around it, some cap the logits softly. Names and directions differ
(`logits_scaling` divides in Granite and multiplies in HyperCLOVA X), so the constants are measured on a few
tokens of the model's own forward pass, and taken only if they reproduce its logits.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.learner.backbone import undisturbed
from verl_lite.engine.learner.logprobs import token_logprobs, token_logprobs_and_entropy
from verl_lite.engine.learner.tiles import LogitRule
from verl_lite.engine.types import PreTrainedModel
from verl_lite.errors import ConfigError


@dataclass(frozen=True, slots=True)
class OutputHead:
    """The linear map from hidden states to logits, and what the model does to them."""

    linear: nn.Module
    rule: LogitRule

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """logits_NV in full: for a few tokens."""
        bias = getattr(self.linear, "bias", None)
        return self.rule.apply(nn.functional.linear(hidden_ND, self.linear.weight, bias).float())  # type: ignore[arg-type]

    def logprobs(self, hidden_ND: Tensor, targets_N: Tensor, *, temperature: float, tile_mb: int) -> Tensor:
        """See `token_logprobs`."""
        return token_logprobs(hidden_ND, targets_N=targets_N, **self._arguments(temperature, tile_mb))

    def logprobs_and_entropy(
        self, hidden_ND: Tensor, targets_N: Tensor, *, temperature: float, tile_mb: int
    ) -> tuple[Tensor, Tensor]:
        """See `token_logprobs_and_entropy`."""
        options = self._arguments(temperature, tile_mb)
        return token_logprobs_and_entropy(hidden_ND, targets_N=targets_N, **options)

    def _arguments(self, temperature: float, tile_mb: int) -> dict[str, Any]:
        return {
            "weight_VD": self.linear.weight,
            "bias_V": getattr(self.linear, "bias", None),
            "rule": self.rule,
            "temperature": temperature,
            "tile_mb": tile_mb,
        }


def output_head(model: PreTrainedModel, backbone: nn.Module) -> OutputHead:
    """The head of a causal model. Raises ConfigError if its logits are more than that, scaled and capped."""
    linear = model.get_output_embeddings()
    if linear is None or not hasattr(linear, "weight"):
        raise ConfigError(f"{type(model).__name__} has no output head that gives one logit per token")
    try:
        seen = _observe(model, backbone, linear)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{type(model).__name__} cannot be trained: given tokens alone, it fails with: {error}"
        ) from error
    numbers = sorted(set(_numbers(model.config)))
    for cap in (None, *(number for number in numbers if number > 0)):
        rule = LogitRule(scale=_scale(seen, cap, numbers), cap=cap)
        if seen.is_explained_by(rule):
            return OutputHead(linear, rule)
    raise ConfigError(
        f"{type(model).__name__} computes its logits in a way that the learner's head does not know (known: "
        "a linear map of the last hidden states, a bias, a constant factor, a soft cap)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A few tokens' last hidden states, the head's output for them, and the model's logits."""

    hidden_ND: Tensor
    linear_NV: Tensor
    logits_NV: Tensor

    def is_explained_by(self, rule: LogitRule) -> bool:
        expected_NV = rule.apply(self.linear_NV)
        allowed = 64 * torch.finfo(self.hidden_ND.dtype).eps * float(self.logits_NV.abs().max())
        return float((expected_NV - self.logits_NV).abs().max()) <= allowed


@torch.no_grad()
def _observe(model: PreTrainedModel, backbone: nn.Module, linear: nn.Module) -> _Seen:
    weight: Tensor = linear.weight  # type: ignore[assignment]
    size = weight.shape[0]
    ids = torch.arange(size // 8, size // 8 + 4, device=weight.device)[None]
    with undisturbed(model):
        logits_NV = model(input_ids=ids, use_cache=False).logits[0]
        hidden_ND = backbone(input_ids=ids, use_cache=False).last_hidden_state[0]
    bias = getattr(linear, "bias", None)
    linear_NV = nn.functional.linear(hidden_ND.to(weight.dtype), weight, bias)
    return _Seen(hidden_ND=hidden_ND, linear_NV=linear_NV.double(), logits_NV=logits_NV.double())


def _scale(seen: _Seen, cap: float | None, numbers: Iterable[float]) -> float:
    """The factor that fits best, as the configuration or six digits give it where they do."""
    target_NV = seen.logits_NV
    if cap is not None:
        target_NV = cap * torch.atanh((target_NV / cap).clamp(-1 + 1e-9, 1 - 1e-9))
    found = float((seen.linear_NV * target_NV).sum() / seen.linear_NV.square().sum())
    near = 16 * torch.finfo(seen.hidden_ND.dtype).eps
    exact = [1.0, *numbers, *(1 / number for number in numbers if number), float(f"{found:.6g}")]
    return next((one for one in exact if math.isclose(one, found, rel_tol=near)), found)


def _numbers(config: Any) -> Iterator[float]:
    """Every number in the configuration of the model and of its language model."""
    for part in {id(one): one for one in (config, config.get_text_config())}.values():
        for value in vars(part).values():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                yield float(value)
