"""The policy: a causal transformers model; log-probabilities and entropies per completion token.

Shapes: N completion tokens of a micro-batch, D hidden.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.learner.backbone import backbone_of, begin_training, hidden_states
from verl_lite.engine.learner.chosen import chosen_logprobs, top_logprobs
from verl_lite.engine.learner.head import output_head
from verl_lite.engine.learner.layers import keep_activations, prepare_layers
from verl_lite.engine.learner.packing import (
    PackedBatch,
    balance_ranks,
    by_samples,
    dummy_batch,
    pack,
    pack_padded,
    split_micro_batches,
)
from verl_lite.engine.learner.proof import arrange
from verl_lite.engine.learner.ranks import SINGLE_RANK, Ranks
from verl_lite.engine.model.weights import base_model
from verl_lite.engine.types import TrainingSample

R = TypeVar("R")

SPREAD_TOKENS = 64


class Policy:
    """Runs a model on micro-batches. Holds no optimiser; the reference policy is a `Policy` too.

    With several `ranks`, it computes this rank's micro-batches and returns results of all ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        config: LearnerConfig,
        *,
        pad_token_id: int,
        temperature: float = 1.0,
        ranks: Ranks = SINGLE_RANK,
    ) -> None:
        self.model = model
        self._config = config
        self._pad_token_id = pad_token_id
        self._temperature = temperature
        self._causal = base_model(model)
        self._backbone = backbone_of(self._causal)
        self._head = output_head(self._causal, self._backbone)
        self._ranks = ranks
        self.arrangement = arrange(
            self._causal, _CausalReading(self), config, pad_id=pad_token_id, ranks=ranks
        )
        self.is_packed = self.arrangement.is_packed
        prepare_layers(self._causal, config, self.device)

    def beside(self, model: nn.Module) -> "Policy":
        """A policy of `model` that runs as this one does."""
        return Policy(
            model,
            self._config,
            pad_token_id=self._pad_token_id,
            temperature=self._temperature,
            ranks=self._ranks,
        )

    def begin_training(self) -> None:
        """Training mode, with dropout only where the config asks for it."""
        begin_training(self.model, dropout=self._config.dropout)

    def distribute(self) -> None:
        """Distribute the weights over the ranks: after copying the model, before creating its optimiser."""
        self._ranks.distribute(self._causal)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def micro_batches(self, samples: Sequence[TrainingSample]) -> Iterator[PackedBatch]:
        """The samples, split and packed by the config's token budget, on the model's device."""
        device = self.device
        for batch in micro_batches(
            samples,
            self._config,
            packed=self.is_packed,
            pad_token_id=self._pad_token_id,
            ranks=self._ranks,
        ):
            yield batch.to(device)

    def logprobs(
        self, batch: PackedBatch, *, temperature: float | None = None, autocast: bool = True
    ) -> Tensor:
        """logprobs_N of the completion tokens, in nats, in the order of `batch.targets_N`.

        At the sampling temperature unless another is given. Without `autocast`, in the weights' dtype.
        """
        with self.autocast() if autocast else nullcontext():
            return self._ranks.forward(self._causal, self._read, self._head.logprobs, batch, temperature)

    def logprobs_and_entropy(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """(logprobs_N, entropy_N) at the sampling temperature, both in nats."""
        with self.autocast():
            return self._ranks.forward(self._causal, self._read, self._head.logprobs_and_entropy, batch, None)

    def logprobs_and_chosen(
        self, batch: PackedBatch, ids_NK: Tensor, *, is_complete: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(logprobs_N, entropy_N, chosen_NK): as `logprobs`, and log p of the tokens `ids_NK`."""
        with self.autocast():
            return self._ranks.forward(self._causal, self._chosen, batch, ids_NK, is_complete)

    def _chosen(self, batch: PackedBatch, ids_NK: Tensor, is_complete: bool) -> tuple[Tensor, Tensor, Tensor]:
        temperature, tile_mb = self._temperature, self._config.logits_tile(on_gpu=self.device.type != "cpu")
        hidden_ND, targets_N = hidden_states(self._backbone, batch, self.device), batch.targets_N
        targets_N = targets_N.to(self.device)
        logprobs_N, entropy_N = self._head.logprobs_and_entropy(
            hidden_ND, targets_N, temperature=temperature, tile_mb=tile_mb
        )
        chosen_NK = chosen_logprobs(
            self._head,
            hidden_ND,
            targets_N,
            logprobs_N,
            ids_NK=None if is_complete else ids_NK,
            temperature=temperature,
            tile_mb=tile_mb,
        )
        return logprobs_N, entropy_N, chosen_NK

    @torch.no_grad()
    def top_logprobs(self, samples: Sequence[TrainingSample], k: int) -> list[tuple[Tensor, Tensor]]:
        """Per sample ids_TK and log p of the k most probable tokens at each place (see chosen.py)."""
        self.model.eval()
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for batch in self.micro_batches(samples):
            with self.autocast():
                ids_NK, top_NK = self._ranks.forward(self._causal, self._top, batch, k)
            lengths = [len(samples[index].completion_ids) for index in batch.sample_indices]
            parts = zip(*(torch.split(one.cpu(), lengths) for one in (ids_NK, top_NK)), strict=True)
            found |= dict(zip(batch.sample_indices, parts, strict=True)) if lengths else {}
        found = self._ranks.all_gather(found)
        return [found[index] for index in range(len(samples))]

    def _top(self, batch: PackedBatch, k: int) -> tuple[Tensor, Tensor]:
        hidden_ND = hidden_states(self._backbone, batch, self.device)
        return top_logprobs(
            self._head,
            hidden_ND,
            k,
            temperature=self._temperature,
            tile_mb=self._config.logits_tile(on_gpu=self.device.type != "cpu"),
        )

    def _read(self, head: Callable[..., R], batch: PackedBatch, temperature: float | None) -> R:
        return head(
            self._hidden_states(batch),
            batch.targets_N.to(self.device),
            temperature=self._temperature if temperature is None else temperature,
            tile_mb=self._config.logits_tile(on_gpu=self.device.type != "cpu"),
        )

    def hidden(self, batch: PackedBatch) -> Tensor:
        """hidden_ND: the hidden states that predict the completion tokens."""
        return self._ranks.forward(self._causal, self._hidden_states, batch)

    def _hidden_states(self, batch: PackedBatch) -> Tensor:
        with keep_activations(self._config, self.device):
            return hidden_states(self._backbone, batch, self.device)

    @torch.no_grad()
    def completion_logprobs(
        self, samples: Sequence[TrainingSample], *, temperature: float | None = None, autocast: bool = True
    ) -> list[Sequence[float]]:
        """log p of every completion token, per sample, without gradients; options as in `logprobs`."""
        self.model.eval()
        parts = [
            (self.logprobs(batch, temperature=temperature, autocast=autocast), batch)
            for batch in self.micro_batches(samples)
        ]
        found = self._ranks.all_gather(by_samples(parts, samples))
        return [found[index] for index in range(len(samples))]

    @torch.no_grad()
    def logit_spread(self, sample: TrainingSample) -> float:
        """The mean standard deviation of the logits at the sample's first completion tokens."""
        self.model.eval()
        found: dict[int, float] = {}
        for batch in self.micro_batches([sample]):
            spread = self._ranks.forward(self._causal, self._spread, batch)
            found |= dict.fromkeys(batch.sample_indices, float(spread))
        return self._ranks.all_gather(found)[0]

    def _spread(self, batch: PackedBatch) -> Tensor:
        hidden_ND = self._hidden_states(batch)[:SPREAD_TOKENS]
        return self._head.logits(hidden_ND).std(-1).mean()

    def autocast(self) -> AbstractContextManager[None]:
        if self._config.dtype == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def micro_batches(
    samples: Sequence[TrainingSample],
    config: LearnerConfig,
    *,
    packed: bool,
    pad_token_id: int,
    ranks: Ranks = SINGLE_RANK,
) -> Iterator[PackedBatch]:
    """This rank's micro-batches within the token budget, each one packed row or padded rows.

    Every rank gets the same number, as ranks step through a sharded model together.
    """
    shared = shared_tokens(samples, config) if packed else [0] * len(samples)
    budget = config.max_tokens_per_micro_batch
    shards = [list(range(len(samples)))]
    if ranks.size > 1:
        shards = balance_ranks(samples, num_ranks=ranks.size, max_tokens=budget, shared=shared)
    own = shards[ranks.rank]
    batches = split_micro_batches(
        [samples[i] for i in own], max_tokens=budget, shared=[shared[i] for i in own], padded=not packed
    )
    num_dummies = ranks.all_reduce_max(len(batches)) - len(batches)
    for members in batches:
        indices = [own[at] for at in members]
        if packed:
            yield pack(samples, indices, shared)
        else:
            yield pack_padded(samples, indices, pad_token_id)
    for _ in range(num_dummies):
        yield dummy_batch(packed=packed, token_id=pad_token_id)


def shared_tokens(samples: Sequence[TrainingSample], config: LearnerConfig) -> list[int]:
    """How many first tokens of each sample's prompt are computed once for all samples that begin with them.

    The whole prompt, if several have it. Else the shortest prompt that it begins with: of a trajectory in
    several samples that is the first one's. Attention knows one prefix per segment, without a prefix of its
    own, so what only later samples of a trajectory share is computed for each.
    """
    if config.share_prompts == "never":
        return [0] * len(samples)
    min_tokens = 0 if config.share_prompts == "always" else config.share_prompts_min_tokens
    prompts = [tuple(sample.prompt_ids) for sample in samples]
    counts, roots = Counter(prompts), dict[tuple[int, ...], tuple[int, ...]]()
    root: tuple[int, ...] = ()
    for prompt in sorted(counts):  # a prompt stands before those that begin with it
        if not root or prompt[: len(root)] != root:
            root = prompt
        roots[prompt] = prompt if counts[prompt] > 1 else root
    users = Counter(roots[prompt] for prompt in prompts)
    return [
        len(root) if users[root] > 1 and len(root) >= min_tokens else 0
        for root in (roots[prompt] for prompt in prompts)
    ]


@dataclass(frozen=True, slots=True)
class _CausalReading:
    """Log-probabilities at temperature 1, without autocast."""

    policy: Policy

    def learned(self, batch: PackedBatch) -> Sequence[Tensor]:
        logprobs_N = self.policy.logprobs(batch, temperature=1.0, autocast=False)
        return [logprobs_N[batch.sequence_N == at] for at in range(len(batch.sample_indices))]

    def plain(self, sample: TrainingSample) -> tuple[Tensor, float]:
        device = self.policy.device
        ids = torch.tensor([*sample.prompt_ids, *sample.completion_ids], device=device)
        start = len(sample.prompt_ids)
        logits_TV = base_model(self.policy.model)(input_ids=ids[None], use_cache=False).logits[
            0, start - 1 : -1
        ]
        wide = logits_TV if logits_TV.dtype == torch.float64 else logits_TV.float()
        logprobs_T = wide.log_softmax(-1).gather(1, ids[start:, None]).squeeze(1)
        return logprobs_T, float(wide.detach().std(-1).mean())
