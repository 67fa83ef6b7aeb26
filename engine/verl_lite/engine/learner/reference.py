"""The reference policy of the KL term: a frozen copy, one offloaded to the CPU, the base under LoRA, or the
policy's exponential moving average (EMA), which follows it.
"""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from verl_lite.engine.config.algorithm import AlgorithmConfig
from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.learner.ranks import SINGLE_RANK, Ranks
from verl_lite.engine.types import PreTrainedModel, TrainingSample
from verl_lite.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ReferencePolicy:
    """Log-probabilities of a policy that changes only by `follow`."""

    policy: Policy
    offload: bool = False
    adapter_off: bool = False

    @torch.no_grad()
    def follow(self, model: nn.Module, *, decay: float) -> None:
        """reference = decay x reference + (1 - decay) x the trained weights of `model`."""
        for own, moved in zip(self.policy.model.parameters(), model.parameters(), strict=True):
            if moved.requires_grad:
                own.lerp_(moved.to(own.device, own.dtype), 1.0 - decay)

    def completion_logprobs(
        self, samples: Sequence[TrainingSample], *, device: torch.device
    ) -> list[list[float]]:
        """log p of every completion token, per sample; an offloaded copy is moved to `device` and back."""
        model: PreTrainedModel = self.policy.model
        base: AbstractContextManager[None] = model.disable_adapter() if self.adapter_off else nullcontext()
        if self.offload:
            model.to(device)
        with base:
            logprobs = self.policy.completion_logprobs(samples)
        if self.offload:
            model.to("cpu")
        return logprobs


def make_reference(
    policy: Policy,
    config: LearnerConfig,
    algorithm: AlgorithmConfig,
    *,
    pad_token_id: int,
    temperature: float,
    ranks: Ranks = SINGLE_RANK,
) -> ReferencePolicy | None:
    """What `kl.reference` names, made from the policy's current weights; None at coefficient 0 unless an EMA.

    Call it before the policy's weights are distributed over the ranks.
    """
    kind = algorithm.kl.reference
    if algorithm.kl.coefficient == 0 and kind != "ema":
        return None
    if kind == "adapter_off":
        if not hasattr(policy.model, "disable_adapter"):
            raise ConfigError(
                "kl.reference=adapter_off needs learner.lora: the model has no adapters to switch off"
            )
        return ReferencePolicy(policy, adapter_off=True)
    frozen: nn.Module = copy.deepcopy(policy.model).requires_grad_(False).eval()
    copied = Policy(frozen, config, pad_token_id=pad_token_id, temperature=temperature, ranks=ranks)
    copied.distribute()
    offload = kind == "offload" and copied.device.type != "cpu"
    if offload:
        frozen.to("cpu")
    return ReferencePolicy(copied, offload=offload)
