"""The reference policy of the KL term: a frozen copy, one offloaded to the CPU, the base under LoRA, or the
policy's exponential moving average (EMA), which follows it.
"""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from verl_lite.engine.config.algorithm import KLConfig
from verl_lite.engine.learner.finite import refuse_not_finite
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.types import PreTrainedModel, TrainingSample
from verl_lite.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ReferencePolicy:
    """Log-probabilities of a policy that is frozen, or with `decay` follows another."""

    policy: Policy
    offload: bool = False
    adapter_off: bool = False
    decay: float | None = None

    @property
    def is_average(self) -> bool:
        """Whether it is a moving average (EMA)."""
        return self.decay is not None

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """reference = decay x reference + (1 - decay) x the trained weights of `model`, if it is an EMA."""
        if self.decay is None:
            return
        for own, moved in zip(self.policy.model.parameters(), model.parameters(), strict=True):
            if moved.requires_grad:
                own.lerp_(moved.to(own.device, own.dtype), 1.0 - self.decay)

    def completion_logprobs(
        self, samples: Sequence[TrainingSample], *, device: torch.device
    ) -> list[Sequence[float]]:
        """log p of every completion token, per sample; an offloaded copy is moved to `device` and back."""
        model: PreTrainedModel = self.policy.model
        base: AbstractContextManager[None] = model.disable_adapter() if self.adapter_off else nullcontext()
        if self.offload:
            model.to(device)
        with base:
            logprobs = self.policy.completion_logprobs(samples)
        if self.offload:
            model.to("cpu")
        refuse_not_finite("the reference policy", samples, logprobs)
        return logprobs


def make_reference(policy: Policy, config: KLConfig) -> ReferencePolicy | None:
    """What `config.reference` names, made from the policy's weights; None at coefficient 0 unless an EMA.

    Call it before the policy's weights are distributed over the ranks.
    """
    kind = config.reference
    if config.coefficient == 0 and kind != "ema":
        return None
    if kind == "adapter_off":
        if not hasattr(policy.model, "disable_adapter"):
            raise ConfigError(
                "kl.reference=adapter_off needs learner.lora: the model has no adapters to switch off"
            )
        return ReferencePolicy(policy, adapter_off=True)
    copied = policy.beside(copy.deepcopy(policy.model).requires_grad_(False).eval())
    copied.distribute()
    offload = kind == "offload" and copied.device.type != "cpu"
    if offload:
        copied.model.to("cpu")
    return ReferencePolicy(copied, offload=offload, decay=config.ema_decay if kind == "ema" else None)
