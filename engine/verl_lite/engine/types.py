"""The frozen types of the data's way through the engine, one a stage, in the order of the data.

    PromptRow -> Rollout -> ScoredRollout -> TrainingSample -> PackedBatch -> UpdateStats
    dataset      sampler    rewards          advantages        tensors begin  learner

`Rollout` and `ScoredRollout` are the plugin room's: rewards see exactly what training saw.
Token positions: `T` counts the completion's tokens. No stage reuses a field for another meaning.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from verl_lite.plugins import Message, Rollout, SamplerSettings, ScoredRollout

__all__ = [
    "AdapterSource",
    "PolicyLearner",
    "PromptRow",
    "Sampler",
    "TokenStatistics",
    "TrainingSample",
    "UpdateStats",
    "WeightSource",
    "weights_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """One data set row, ready to sample from. `id` is stable across runs and is the rollouts' group."""

    id: str
    messages: Sequence[Message]
    prompt_ids: Sequence[int]
    reference: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStatistics:
    """What the learner knows of one rollout before advantages: lists of length T, empty where not needed."""

    old_logprobs_T: Sequence[float] = ()
    ref_logprobs_T: Sequence[float] = ()
    values_T: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample:
    """One completion with what the loss needs. Lists of length T.

    sampler_logprobs_T  log-probabilities the sampler reported
    advantages_T        the advantage at each token (constant over T for outcome rewards)
    loss_mask_T         1 where the token counts in the loss
    returns_T           the critic's targets; values_T its predictions at sampling time (PPO only)
    ref_logprobs_T      the reference policy's; old_logprobs_T the policy's own at the start of the step;
                        both empty when the learner is to compute them, if it needs them
    """

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    sampler_logprobs_T: Sequence[float]
    advantages_T: Sequence[float]
    loss_mask_T: Sequence[int]
    group: str = ""
    returns_T: Sequence[float] = ()
    values_T: Sequence[float] = ()
    ref_logprobs_T: Sequence[float] = ()
    old_logprobs_T: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStats:
    """What one policy update reports: metric names as documented in docs/metrics.md."""

    metrics: Mapping[str, float]


class WeightSource(Protocol):
    """What a sampler takes new weights from: the learner."""

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every (Hugging Face parameter name, full tensor) of the policy."""
        ...

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """log p(token t | tokens before t) for t >= 1: length len(token_ids) - 1; for the canary."""
        ...


@runtime_checkable
class AdapterSource(Protocol):
    """A learner whose LoRA adapters a sampler may take without the base they stand on."""

    def adapter_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(PEFT name, full tensor) of the adapters alone."""
        ...


def never_stop() -> None:
    """The check of those who never want to stop."""


def weights_of(source: WeightSource, *, adapters: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """What a sampler loads: every weight of the policy, or its adapters alone. TypeError without any."""
    if not adapters:
        return source.named_weights()
    if not isinstance(source, AdapterSource):
        raise TypeError(f"{type(source).__name__} has no adapters to give")
    return source.adapter_weights()


class PolicyLearner(WeightSource, Protocol):
    """What the trainer trains: `Learner` in this process, or a group of ranks behind the same calls."""

    @property
    def kl_coefficient(self) -> float:
        """The KL term's present weight."""
        ...

    def token_statistics(self, scored: Sequence[ScoredRollout]) -> list[TokenStatistics]:
        """What `estimate_advantages` needs of the models: critic values, log-probs for a KL reward."""
        ...

    def update(self, samples: Sequence[TrainingSample]) -> UpdateStats:
        """One policy update on `samples`; raises TrainingError past the limit of bad steps."""
        ...

    def scale_learning_rate(self, scale: float) -> None:
        """Multiply the scheduled learning rate by `scale` from now on; no part of the state."""
        ...

    def start_saving(self, folder: Path, tokenizer: Any) -> Callable[[], None]:
        """Begin to write `folder`'s policy/ and the learner's state, as of now.

        What it returns finishes the write; it may run in another thread while training goes on.
        """
        ...

    def restore(self, folder: Path) -> None:
        """Continue from the state in the checkpoint `folder`; raises CheckpointError when damaged."""
        ...

    def close(self) -> None:
        """End what it started beside this process."""
        ...


class Sampler(Protocol):
    """Anything that generates: vLLM in-process or by HTTP, Ray actors, `transformers`."""

    @property
    def version(self) -> int:
        """The policy version of the weights it samples from."""
        ...

    def generate(
        self,
        prompts: Sequence[PromptRow],
        *,
        num_samples: int,
        settings: SamplerSettings,
        check: Callable[[], None] = never_stop,
    ) -> Iterator[list[Rollout]]:
        """Yield one list of `num_samples` rollouts a prompt, as each group finishes (any order).

        `check` is called several times a second, also while no group ends; what it raises ends the sampling.
        """
        ...

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """As WeightSource.token_logprobs, computed by the sampler's own weights."""
        ...

    def load_weights(self, source: WeightSource, *, version: int) -> float:
        """Take the source's weights, drop caches of the old ones, and pass the canary.

        Returns the canary's largest difference of log-probabilities; raises TrainingError when it
        is beyond the dtype's tolerance.
        """
        ...

    def sleep(self) -> None:
        """Free the device's memory for the learner (a no-op on the CPU)."""
        ...

    def wake(self) -> None: ...

    def close(self) -> None: ...
