"""The frozen types of the engine, one per stage, in the order of the data.

    PromptRow -> Rollout -> ScoredRollout -> StepBatch -> TrainingSample -> PackedBatch -> UpdateStats
    dataset      sampler    rewards          rollouts     advantages        tensors begin  learner

`Rollout` and `ScoredRollout` are the plugins': rewards see exactly what training saw.
`T` is the number of completion tokens. A field never changes meaning.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch

from verl_lite.plugins import Message, Rollout, SamplerSettings, ScoredBatch, ScoredRollout

if TYPE_CHECKING:
    import transformers

Tokenizer: TypeAlias = "transformers.PreTrainedTokenizerBase"
PreTrainedModel: TypeAlias = "transformers.PreTrainedModel"
ComponentName = Literal[
    "policy", "entropy", "reference_kl", "kl_cov", "cross_entropy", "distillation", "forward_kl"
]
OF_THE_POLICY: tuple[ComponentName, ...] = ("policy", "entropy", "reference_kl")  # share `loss_mask_T`
OF_TEACHERS: tuple[ComponentName, ...] = ("distillation", "forward_kl")  # compare with `teacher`


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """One dataset row, ready to sample from. `id` is stable across runs and is the rollouts' group."""

    id: str
    messages: Sequence[Message]
    prompt_ids: Sequence[int]
    reference: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def is_trainable(row: ScoredRollout) -> bool:
    """Whether the row has tokens and a reward (None: it was dropped)."""
    return row.reward is not None and bool(row.rollout.completion_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """Everything a step sampled. It trains on `groups`; the others have no gradient.

    num_rounds  rounds of prompts; more than one only with dynamic sampling
    epoch       epoch of the prompts
    replayed    rows of older steps that this one trains on again
    prompts     metrics of the curriculum
    seconds     by stage, of work outside the trainer's thread
    """

    scored: ScoredBatch
    groups: frozenset[str]
    num_rounds: int = 1
    epoch: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    replayed: Sequence[ScoredRollout] = ()
    prompts: Mapping[str, float] = field(default_factory=dict)

    @property
    def trained(self) -> list[ScoredRollout]:
        """The rows that are trained on, in the order of `scored.rows`."""
        return [row for row in self.scored.rows if self._is_trained(row)]

    def _is_trained(self, row: ScoredRollout) -> bool:
        return row.rollout.group in self.groups and is_trainable(row)

    def advantages(self, samples: Sequence["TrainingSample"]) -> list[float | None]:
        """Per row the first token's advantage; None if not in `trained`, whose `samples` these are."""
        rest = iter([sample for sample in samples if sample.part == 0])
        return [next(rest).advantages_T[0] if self._is_trained(row) else None for row in self.scored.rows]

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of all scores, and how many groups were kept."""
        return {
            **self.scored.metrics,
            "rollout/refills": float(self.num_rounds - 1),
            "rollout/groups_sampled": float(len({row.rollout.group for row in self.scored.rows})),
            "rollout/groups_trained": float(len(self.groups)),
            **self.prompts,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStatistics:
    """Model outputs per token of one rollout, for its advantages. Each has length T, or is empty."""

    old_logprobs_T: Sequence[float] = ()
    ref_logprobs_T: Sequence[float] = ()
    values_T: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherTokens:
    """A teacher's log-probabilities of K tokens at each of T positions.

    ids_TK is None where K is 1 and the token the sampled one. `is_complete`: the K tokens are all there are.
    """

    logprobs_TK: torch.Tensor
    ids_TK: torch.Tensor | None = None
    is_complete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample:
    """One completion and the loss's inputs. Each list has length T, or is empty.

    sampler_logprobs_T  log-probabilities as the sampler reported them
    advantages_T        the same for all tokens under outcome rewards
    loss_mask_T         1 where the token counts in the policy's loss, its entropy and its KL to the reference
    components          weight of each token in further loss components, by name; a weight of 0: not in it
    part                which sample of its rollout it is, if the chat template rewrote earlier turns
    returns_T           the critic's targets (PPO only)
    values_T            the critic's predictions before the update (PPO only)
    ref_logprobs_T      the reference policy's; empty: the learner computes them if needed
    old_logprobs_T      the policy's at the start of the step; empty: likewise
    teacher             what the components `distillation` and `forward_kl` compare with
    """

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    sampler_logprobs_T: Sequence[float] = ()
    advantages_T: Sequence[float] = ()
    loss_mask_T: Sequence[int] = ()
    components: Mapping[ComponentName, Sequence[float]] = field(default_factory=dict)
    group: str = ""
    part: int = 0
    returns_T: Sequence[float] = ()
    values_T: Sequence[float] = ()
    ref_logprobs_T: Sequence[float] = ()
    old_logprobs_T: Sequence[float] = ()
    teacher: TeacherTokens | None = None

    @property
    def is_in_policy(self) -> bool:
        """Whether a token counts in the policy's loss."""
        return any(self.loss_mask_T)

    def component(self, name: ComponentName) -> Sequence[float]:
        """The weight of each token in the component; empty if none is in it."""
        if name in OF_THE_POLICY:
            return self.loss_mask_T
        return self.components.get(name, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStats:
    """Metrics of one policy update, by their names in docs/training.md."""

    metrics: Mapping[str, float]


class WeightSource(Protocol):
    """The source of new weights for a sampler: the learner."""

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every (name in the model, full tensor) of the policy, buffers that are saved included."""

    def checkpoint_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The same weights as its files have them (see model.checkpoint_names)."""

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """log p(token t | tokens before t) for t >= 1: length len(token_ids) - 1; for the canary."""

    def logprob_noise(self, token_ids: Sequence[int], dtype: str) -> float:
        """What a sampler that computes in `dtype` may differ by, usually, in nats; see model/precision.py."""


@runtime_checkable
class AdapterSource(Protocol):
    """A learner whose LoRA adapters a sampler may load without the base model."""

    def adapter_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(PEFT name, full tensor) of the adapters."""


def never_stop() -> None:
    """A `check` that never stops."""


def weights_of(source: WeightSource, *, adapters: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """The policy in the checkpoint format, or only its adapters. Raises TypeError if `source` has none."""
    if not adapters:
        return source.checkpoint_weights()
    if not isinstance(source, AdapterSource):
        raise TypeError(f"{type(source).__name__} has no adapters to give")
    return source.adapter_weights()


class PolicyLearner(WeightSource, Protocol):
    """What the trainer trains: `Learner` in this process, or a group of ranks with the same methods."""

    @property
    def kl_coefficient(self) -> float:
        """The current weight of the KL term."""

    @property
    def notes(self) -> Sequence[str]:
        """One line per model that does not run packed, with the reason."""

    def token_statistics(self, scored: Sequence[ScoredRollout]) -> list[TokenStatistics]:
        """Critic values, and log-probs for a KL in the reward, per row, for `estimate_advantages`."""

    def update(self, samples: Sequence[TrainingSample]) -> UpdateStats:
        """One policy update on `samples`. Raises TrainingError at the limit of bad steps."""

    def scale_learning_rate(self, scale: float) -> None:
        """Multiply the scheduled learning rate by `scale` from now on. Not saved in checkpoints."""

    def start_saving(self, folder: Path, tokenizer: Tokenizer) -> Callable[[], None]:
        """Start writing policy/ and the learner's current state into `folder`.

        The returned function finishes; it may run in another thread while training continues.
        """

    def restore(self, folder: Path) -> None:
        """Continue from the checkpoint in `folder`. Raises CheckpointError if it is damaged."""

    def close(self) -> None:
        """Stop the processes it started."""


class Sampler(Protocol):
    """Generates rollouts: vLLM in-process, by HTTP or in Ray actors, or `transformers`."""

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

        `check` is called several times per second; an exception from it ends the sampling.
        """

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Like WeightSource.token_logprobs, with the sampler's weights."""

    def load_weights(self, source: WeightSource, *, version: int) -> float:
        """Load the source's weights, reset caches, check the canary.

        Returns the canary's largest difference in log-probability. Raises TrainingError if it exceeds the
        dtype's tolerance.
        """

    def sleep(self) -> None:
        """Free the device's memory for the learner. Does nothing on the CPU."""

    def wake(self) -> None:
        """Take back the memory that `sleep` freed."""

    def close(self) -> None:
        """Stop the processes it started."""
