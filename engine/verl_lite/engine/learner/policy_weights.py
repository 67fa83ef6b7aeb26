"""A policy as a source of weights for samplers: the learner's own, or its moving average."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from verl_lite.engine.algorithm.trajectories import bare_samples
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.model.checkpoint_names import in_checkpoint_format
from verl_lite.engine.model.lora import adapter_weights
from verl_lite.engine.model.precision import logprob_noise, num_layers, weights_dtype
from verl_lite.engine.model.weights import named_weights
from verl_lite.engine.types import TrainingSample
from verl_lite.plugins import Rollout


class PolicyWeights:
    """A WeightSource: see types.WeightSource."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every (name in the model, full tensor) of the policy, LoRA adapters merged in."""
        return named_weights(self.policy.model)

    def checkpoint_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The same weights as the policy's files have them, for samplers that load such files."""
        return in_checkpoint_format(self.policy.model, self.named_weights())

    def adapter_weights(self) -> Iterator[tuple[str, Tensor]]:
        """(PEFT name, tensor) of the LoRA adapters alone, for samplers that serve adapters."""
        return adapter_weights(self.policy.model)

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """See WeightSource. At temperature 1 and without autocast, whose error the sampler does not have."""
        sample = _sample(token_ids)
        return list(self.policy.completion_logprobs([sample], temperature=1.0, autocast=False)[0])

    def logprob_noise(self, token_ids: Sequence[int], dtype: str) -> float:
        """See WeightSource."""
        sample = _sample(token_ids)
        model, spread = self.policy.model, self.policy.logit_spread(sample)
        dtypes = (getattr(torch, dtype), weights_dtype(model))  # both sides round
        return math.hypot(
            *(logprob_noise(kind, num_layers=num_layers(model), spread=spread) for kind in dtypes)
        )


def _sample(token_ids: Sequence[int]) -> TrainingSample:
    (sample,) = bare_samples(Rollout(completion="", prompt_ids=token_ids[:1], completion_ids=token_ids[1:]))
    return sample
