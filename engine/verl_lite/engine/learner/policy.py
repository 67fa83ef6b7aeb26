"""The policy: a causal transformers model seen as "log-probabilities and entropies of a micro-batch"."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.config.algorithm import LearnerConfig
from verl_lite.engine.learner.attention import (
    ATTENTION_NAME,
    attention_plan,
    packed_forward,
    register_attention,
)
from verl_lite.engine.learner.logprobs import token_logprobs_and_entropy
from verl_lite.engine.learner.packing import (
    PackedBatch,
    filler,
    pack,
    pack_padded,
    plan_micro_batches,
    share_out,
)
from verl_lite.engine.learner.ranks import ALONE, Ranks
from verl_lite.engine.model.weights import base_model
from verl_lite.engine.types import TrainingSample
from verl_lite.errors import ConfigError

__all__ = ["Policy", "by_sample", "hidden_states", "micro_batches", "prepare_backbone"]


class Policy:
    """Runs a model on micro-batches. Holds no optimiser; the reference policy is one of these too.

    With several `ranks`, micro-batches are this rank's, and results are everybody's.
    """

    def __init__(
        self,
        model: nn.Module,
        config: LearnerConfig,
        *,
        pad_token_id: int,
        temperature: float = 1.0,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model = model
        self._config = config
        self._pad_token_id = pad_token_id
        self._temperature = temperature
        self._causal = base_model(model)
        self._ranks = ranks
        self.is_packed = prepare_backbone(self._causal, config)
        _refuse_unusual_heads(self._causal)

    def distribute(self) -> None:
        """Distribute the weights over the ranks: after copies of the model are made, before an optimiser."""
        self._ranks.place(self._causal)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def micro_batches(self, samples: Sequence[TrainingSample]) -> Iterator[PackedBatch]:
        """The samples, cut and packed by the config's token budget."""
        return micro_batches(
            samples,
            self._config,
            packed=self.is_packed,
            pad_token_id=self._pad_token_id,
            ranks=self._ranks,
        )

    def logprobs(
        self, batch: PackedBatch, *, temperature: float | None = None, autocast: bool = True
    ) -> tuple[Tensor, Tensor]:
        """log p and entropy of the completion tokens, both of N, in the order of `batch.targets_N`.

        At the sampling temperature unless another is given. Without `autocast`, in the weights' dtype.
        """
        with self.autocast() if autocast else nullcontext():
            return self._ranks.run(self._causal, self._logprobs, batch, temperature)

    def _logprobs(self, batch: PackedBatch, temperature: float | None) -> tuple[Tensor, Tensor]:
        return token_logprobs_and_entropy(
            hidden_states(self._causal.model, batch, self.device),
            self._causal.get_output_embeddings().weight,
            batch.targets_N.to(self.device),
            temperature=self._temperature if temperature is None else temperature,
            tile_mb=self._config.logits_tile_mb,
        )

    def hidden(self, batch: PackedBatch) -> Tensor:
        """The hidden states that predict the completion tokens, of (N, D)."""
        return self._ranks.run(self._causal, hidden_states, self._causal.model, batch, self.device)

    @torch.no_grad()
    def completion_logprobs(
        self, samples: Sequence[TrainingSample], *, temperature: float | None = None, autocast: bool = True
    ) -> list[list[float]]:
        """log p of every completion token of every sample, without gradients; options as in `logprobs`."""
        self.model.eval()
        found: dict[int, list[float]] = {}
        for batch in self.micro_batches(samples):
            logprobs_N, _ = self.logprobs(batch, temperature=temperature, autocast=autocast)
            found |= by_sample(logprobs_N, batch, samples)
        found = self._ranks.merge(found)
        return [found[index] for index in range(len(samples))]

    def autocast(self) -> AbstractContextManager[None]:
        if self._config.dtype == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def by_sample(
    values_N: Tensor, batch: PackedBatch, samples: Sequence[TrainingSample]
) -> dict[int, list[float]]:
    """The batch's token values as lists of length T, by the index of the sample."""
    lengths = [len(samples[index].completion_ids) for index in batch.sample_indices]
    parts = torch.split(values_N.detach().cpu(), lengths) if lengths else ()
    return {index: part.tolist() for index, part in zip(batch.sample_indices, parts, strict=True)}


def micro_batches(
    samples: Sequence[TrainingSample],
    config: LearnerConfig,
    *,
    packed: bool,
    pad_token_id: int,
    ranks: Ranks = ALONE,
) -> Iterator[PackedBatch]:
    """This rank's samples, cut by the config's token budget; packed in one row each, or padded.

    Every rank gets as many micro-batches as the one with most: passes through a sharded model are
    made together.
    """
    counts = Counter(tuple(sample.prompt_ids) for sample in samples)

    def is_shared(sample: TrainingSample) -> bool:
        if not packed or config.share_prompts == "never" or counts[tuple(sample.prompt_ids)] < 2:
            return False
        long_enough = len(sample.prompt_ids) >= config.share_prompts_min_tokens
        return config.share_prompts == "always" or long_enough

    shared = [is_shared(sample) for sample in samples]
    budget = config.max_tokens_per_micro_batch
    shares = [list(range(len(samples)))]
    if ranks.size > 1:
        shares = share_out(samples, num_ranks=ranks.size, max_tokens=budget, shared=shared)
    mine = shares[ranks.rank]
    plan = plan_micro_batches(
        [samples[i] for i in mine],
        max_tokens=budget,
        shared=[shared[i] for i in mine],
        padded=not packed,
    )
    num_fillers = ranks.largest(len(plan)) - len(plan)
    for members in plan:
        indices = [mine[at] for at in members]
        if packed:
            yield pack(samples, indices, shared)
        else:
            yield pack_padded(samples, indices, pad_token_id)
    for _ in range(num_fillers):
        yield filler(packed=packed, token_id=pad_token_id)


def prepare_backbone(causal: Any, config: LearnerConfig) -> bool:
    """Set the model's attention and checkpointing; whether it runs packed."""
    windows = getattr(causal.config, "layer_types", None) or ()
    packed = config.backend == "packed" and all(kind == "full_attention" for kind in windows)
    packed = packed and getattr(causal, "_supports_attention_backend", False)
    if packed:
        register_attention()
        causal.set_attn_implementation(ATTENTION_NAME)
    if config.gradient_checkpointing:
        causal.gradient_checkpointing_enable({"use_reentrant": False})
    return packed


def hidden_states(backbone: nn.Module, batch: PackedBatch, device: torch.device) -> Tensor:
    """The last hidden states that predict the batch's completion tokens, of (N, D)."""
    plan = attention_plan(batch.segments, device) if batch.segments else None
    with packed_forward() if plan is not None else nullcontext():
        output = backbone(
            input_ids=batch.input_ids_RL.to(device),
            position_ids=batch.position_ids_RL.to(device),
            use_cache=False,
            **({"packed_plan": plan} if plan is not None else {}),
        )
    return output.last_hidden_state.flatten(0, 1)[batch.predict_from_N.to(device)]  # type: ignore[no-any-return]


def _refuse_unusual_heads(causal: Any) -> None:
    head = causal.get_output_embeddings()
    odd = [
        name
        for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")
        if getattr(causal.config, name, None) not in (None, 1, 1.0)
    ]
    if getattr(head, "bias", None) is not None:
        odd.append("a bias on the output head")
    if odd:
        raise ConfigError(
            f"{type(causal).__name__} changes its logits after the output head ({', '.join(odd)}), which the "
            "learner's head does not compute: use a model of the Qwen or Llama families"
        )
