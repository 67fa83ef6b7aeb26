"""The frozen types of the data's way through the engine, one per stage, in the order of the data.

    PromptRow -> Rollout -> ScoredRollout -> StepBatch -> TrainingSample -> PackedBatch -> UpdateStats
    dataset      sampler    rewards          rollouts     advantages        tensors begin  learner

`Rollout` and `ScoredRollout` are the plugins': rewards see exactly what training saw.
`T` counts the completion's tokens. No stage reuses a field for another meaning.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import torch

from verl_lite.plugins import Message, Rollout, SamplerSettings, ScoredBatch, ScoredRollout

if TYPE_CHECKING:
    import transformers

Tokenizer: TypeAlias = "transformers.PreTrainedTokenizerBase"
PreTrainedModel: TypeAlias = "transformers.PreTrainedModel"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """One dataset row, ready to sample from. `id` is stable across runs and names the rollouts' group."""

    id: str
    messages: Sequence[Message]
    prompt_ids: Sequence[int]
    reference: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def is_trainable(row: ScoredRollout) -> bool:
    """Whether there is something to train on: tokens, and a reward (None: the row was dropped)."""
    return row.reward is not None and bool(row.rollout.completion_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """Everything a step sampled. It trains on `groups`; the other groups had nothing to teach.

    num_rounds  how often prompts were sampled; more than once only with dynamic sampling
    epoch       of the prompts
    seconds     by stage, of what ran beside the trainer
    """

    scored: ScoredBatch
    groups: frozenset[str]
    num_rounds: int = 1
    epoch: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def trained(self) -> list[ScoredRollout]:
        """The rows that are trained on, in the order of `scored.rows`."""
        return [row for row in self.scored.rows if self._is_trained(row)]

    def _is_trained(self, row: ScoredRollout) -> bool:
        return row.rollout.group in self.groups and is_trainable(row)

    def advantages(self, samples: Sequence["TrainingSample"]) -> list[float | None]:
        """One advantage per row: its first token's; None for a row that is not in `trained`.

        `samples` are those of `trained`, in its order.
        """
        rest = iter(samples)
        return [next(rest).advantages_T[0] if self._is_trained(row) else None for row in self.scored.rows]

    @property
    def metrics(self) -> dict[str, float]:
        """The scores' metrics over everything sampled, and how much of it was kept."""
        return {
            **self.scored.metrics,
            "rollout/refills": float(self.num_rounds - 1),
            "rollout/groups_sampled": float(len({row.rollout.group for row in self.scored.rows})),
            "rollout/groups_trained": float(len(self.groups)),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStatistics:
    """What the models say of one rollout's tokens, for its advantages. Each T, or empty where not needed."""

    old_logprobs_T: Sequence[float] = ()
    ref_logprobs_T: Sequence[float] = ()
    values_T: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample:
    """One completion with what the loss needs. Each list has length T.

    sampler_logprobs_T  log-probabilities as the sampler reported them
    advantages_T        constant over T for outcome rewards
    loss_mask_T         1 where the token counts in the loss
    returns_T           the critic's targets (PPO only)
    values_T            the critic's predictions before the update (PPO only)
    ref_logprobs_T      the reference policy's; empty: the learner computes them if it needs them
    old_logprobs_T      the policy's at the start of the step; empty: likewise
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
    """What one policy update reports, by the metric names of docs/training.md."""

    metrics: Mapping[str, float]


class WeightSource(Protocol):
    """Where a sampler gets new weights: the learner."""

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every (Hugging Face parameter name, full tensor) of the policy."""

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """log p(token t | tokens before t) for t >= 1: length len(token_ids) - 1; for the canary."""


@runtime_checkable
class AdapterSource(Protocol):
    """A learner whose LoRA adapters a sampler may load without the base model."""

    def adapter_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(PEFT name, full tensor) of the adapters alone."""


def never_stop() -> None:
    """The `check` that never stops anything."""


def weights_of(source: WeightSource, *, adapters: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """What a sampler loads: every weight of the policy, or its adapters alone.

    Raises TypeError when `source` has no adapters.
    """
    if not adapters:
        return source.named_weights()
    if not isinstance(source, AdapterSource):
        raise TypeError(f"{type(source).__name__} has no adapters to give")
    return source.adapter_weights()


class PolicyLearner(WeightSource, Protocol):
    """What the trainer trains: `Learner` in this process, or a group of ranks with the same methods."""

    @property
    def kl_coefficient(self) -> float:
        """The current weight of the KL term."""

    def token_statistics(self, scored: Sequence[ScoredRollout]) -> list[TokenStatistics]:
        """Per row what `estimate_advantages` needs: critic values, log-probs for a KL in the reward."""

    def update(self, samples: Sequence[TrainingSample]) -> UpdateStats:
        """One policy update on `samples`. Raises TrainingError past the limit of bad steps."""

    def scale_learning_rate(self, scale: float) -> None:
        """Multiply the scheduled learning rate by `scale` from now on. Not saved in checkpoints."""

    def start_saving(self, folder: Path, tokenizer: Tokenizer) -> Callable[[], None]:
        """Start writing policy/ and the learner's current state into `folder`.

        Call the returned function to finish; it may run in another thread while training goes on.
        """

    def restore(self, folder: Path) -> None:
        """Continue from the checkpoint in `folder`. Raises CheckpointError if it is damaged."""

    def close(self) -> None:
        """End the processes it started."""


class Sampler(Protocol):
    """Anything that generates: vLLM in-process or by HTTP, Ray actors, `transformers`."""

    @property
    def version(self) -> int:
        """The policy version of the weights it samples from."""

    def generate(
        self,
        prompts: Sequence[PromptRow],
        *,
        num_samples: int,
        settings: SamplerSettings,
        check: Callable[[], None] = never_stop,
    ) -> Iterator[list[Rollout]]:
        """Yield each prompt's group of `num_samples` rollouts as it finishes, in any order.

        `check` is called several times per second; what it raises ends the sampling.
        """

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """As WeightSource.token_logprobs, by the sampler's own weights."""

    def load_weights(self, source: WeightSource, *, version: int) -> float:
        """Load the source's weights, drop what was cached with the old ones, check the canary.

        Returns the canary's largest difference in log-probability. Raises TrainingError when it exceeds
        the dtype's tolerance.
        """

    def sleep(self) -> None:
        """Free the device's memory for the learner. Does nothing on the CPU."""

    def wake(self) -> None: ...

    def close(self) -> None: ...
