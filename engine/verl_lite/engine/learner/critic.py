"""PPO's critic: a language model's hidden states and a linear value head, with its own optimiser.

The value at token t is that of the state before token t: the same hidden state that predicts it.

Departures from PPO (arXiv:1707.06347) and its usual code: the head's weights start at 0 and its bias at
the mean reward of the first batch, so the first values are that baseline. From 0 the first gradients are
twenty times those that follow, all in one direction: they bend the whole body towards the mean, and AdamW's
second moments, full of them, keep later steps short (both measured: benchmarks/results/quickstart.md).
The value loss is averaged over the batch's counted tokens; clipping around the sampling-time value is
optional (`value_clip: null`).
"""

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.algorithm.losses import token_weights
from verl_lite.engine.config.algorithm import CriticConfig, LearnerConfig
from verl_lite.engine.learner.bad_steps import BadStepGuard
from verl_lite.engine.learner.optimizer import PolicyOptimizer
from verl_lite.engine.learner.packing import PackedBatch
from verl_lite.engine.learner.policy import Policy, by_sample
from verl_lite.engine.learner.ranks import ALONE, Ranks
from verl_lite.engine.model.weights import base_model, float32_master_weights
from verl_lite.engine.types import TrainingSample
from verl_lite.errors import ConfigError

__all__ = ["Critic", "explained_variance", "make_critic", "value_loss"]


def value_loss(values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, *, clip: float | None) -> Tensor:
    """Half the squared error of each token; with `clip`, the worse of it and the clipped value's.

    >>> one = torch.ones(1)
    >>> value_loss(one, 0 * one, 2 * one, clip=None), value_loss(one, 0 * one, 2 * one, clip=0.5)
    (tensor([0.5000]), tensor([1.1250]))
    """
    error_N = (values_N - returns_N).square()
    if clip is not None:
        bounded_N = old_values_N + (values_N - old_values_N).clamp(-clip, clip)
        error_N = torch.maximum(error_N, (bounded_N - returns_N).square())
    return error_N / 2


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than a constant; nan-free."""
    variance = returns.var(correction=0)
    if float(variance) == 0.0:
        return 0.0
    return float(1.0 - (returns - values).var(correction=0) / variance)


class Critic:
    """Values of completions, and their regression on the returns."""

    def __init__(
        self,
        model: nn.Module,
        config: CriticConfig,
        learner: LearnerConfig,
        *,
        pad_token_id: int,
        total_steps: int,
        guard: BadStepGuard,
        ranks: Ranks = ALONE,
    ) -> None:
        float32_master_weights(model)
        self._config = config
        self._guard = guard
        self._ranks = ranks
        self._body = Policy(model, learner, pad_token_id=pad_token_id, ranks=ranks)
        hidden_size = model.get_output_embeddings().weight.shape[1]  # type: ignore[operator]
        reference = next(model.parameters())
        self._head = nn.Linear(hidden_size, 1, device=reference.device, dtype=reference.dtype)
        nn.init.zeros_(self._head.weight)
        nn.init.zeros_(self._head.bias)
        self._body.distribute()
        ranks.place(self._head)
        optimizer = learner.optimizer.model_copy(update={"learning_rate": config.learning_rate})
        self._parameters = [*model.parameters(), *self._head.parameters()]
        self._optimizer = PolicyOptimizer(
            self._parameters, optimizer, total_steps=total_steps * config.epochs
        )
        self.num_updates = 0

    @torch.no_grad()
    def begin_at(self, value: float) -> None:
        """Give this value to every token; nothing happens once it was updated."""
        if not self._optimizer.num_steps:
            self._head.bias.fill_(value)

    @property
    def is_warming_up(self) -> bool:
        """Whether the policy should wait for it still."""
        return self.num_updates < self._config.warmup_steps

    @torch.no_grad()
    def values(self, samples: Sequence[TrainingSample]) -> list[list[float]]:
        """The value at every completion token of every sample."""
        found: dict[int, list[float]] = {}
        for batch in self._body.micro_batches(samples):
            found |= by_sample(self._values(batch), batch, samples)
        found = self._ranks.merge(found)
        return [found[index] for index in range(len(samples))]

    def update(self, samples: Sequence[TrainingSample]) -> dict[str, float]:
        """Epochs of regression on `returns_T`; metrics of the last one, bad steps of all.

        An epoch whose gradients are not finite changes nothing and is the guard's, as a policy's is.
        """
        metrics: dict[str, float] = {}
        num_bad = 0.0
        for _ in range(self._config.epochs):
            metrics = self._epoch(samples)
            num_bad += metrics["critic/bad_steps"]
        metrics["critic/bad_steps"] = num_bad
        self.num_updates += 1
        returns = torch.tensor([value for sample in samples for value in sample.returns_T])
        old_values = torch.tensor([value for sample in samples for value in sample.values_T])
        metrics["critic/explained_variance"] = explained_variance(old_values, returns)
        metrics["critic/value"] = float(old_values.mean())
        return metrics

    def _epoch(self, samples: Sequence[TrainingSample]) -> dict[str, float]:
        weights = token_weights([sum(sample.loss_mask_T) for sample in samples], "token_mean")
        sums: dict[str, float] = defaultdict(float)
        for batch in self._body.micro_batches(samples):
            values_N = self._values(batch)
            chosen = [samples[index] for index in batch.sample_indices]
            flat = {
                name: values_N.new_tensor([value for sample in chosen for value in getattr(sample, name)])
                for name in ("returns_T", "values_T", "loss_mask_T")
            }
            weight_S = values_N.new_tensor([weights[index] for index in batch.sample_indices])
            weights_N = weight_S[batch.sequence_N.to(values_N.device)] * flat["loss_mask_T"]
            loss_N = value_loss(values_N, flat["values_T"], flat["returns_T"], clip=self._config.value_clip)
            loss = (loss_N * weights_N).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            sums["loss/critic"] += float(loss.detach())
        sums = defaultdict(float, self._ranks.sum(sums))
        self._ranks.sum_gradients(self._parameters)
        norm, finite = self._optimizer.step()
        if not finite:
            self._guard.keep(samples, norm)
        sums["critic/grad_norm"] = norm if finite else 0.0
        sums["critic/bad_steps"] = float(not finite)
        return dict(sums)

    def _values(self, batch: PackedBatch) -> Tensor:
        with self._body.autocast():
            hidden_ND = self._body.hidden(batch)
            values_N1: Tensor = self._ranks.run(self._head, self._head.forward, hidden_ND)
            return values_N1.squeeze(1).float()

    def fill_state(self) -> None:
        """As PolicyOptimizer.fill_state."""
        self._optimizer.fill_state()

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self._body.model.state_dict(),
            "head": self._head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._body.model.load_state_dict(state["model"])
        self._head.load_state_dict(state["head"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.num_updates = int(state["num_updates"])


def make_critic(
    config: CriticConfig,
    learner: LearnerConfig,
    policy: nn.Module,
    *,
    pad_token_id: int,
    total_steps: int,
    guard: BadStepGuard | None = None,
    ranks: Ranks = ALONE,
) -> Critic:
    """The critic `config` names: its own model, or a copy of the policy's present weights, all of them
    trained: under LoRA those of the base, without adapters.

    Made before the policy's weights are distributed over the ranks; the critic's are here. `guard` keeps
    and counts its bad steps (unset: one of its own, without a folder).
    """
    causal = base_model(policy)
    if config.model:
        from transformers import AutoModelForCausalLM

        try:
            model: Any = AutoModelForCausalLM.from_pretrained(config.model)
        except (OSError, ValueError) as error:
            raise ConfigError(f"algorithm.critic.model={config.model}: {error}") from None
        if model.config.vocab_size < causal.config.vocab_size:
            raise ConfigError(
                f"algorithm.critic.model={config.model} has a vocabulary of {model.config.vocab_size}, the "
                f"policy {causal.config.vocab_size}: the critic reads the policy's tokens, so choose one of "
                "the same family"
            )
        model.to(next(causal.parameters()).device)
    elif hasattr(policy, "disable_adapter"):
        model = copy.deepcopy(policy).unload()  # type: ignore[operator]
    else:
        model = copy.deepcopy(causal)
    model.requires_grad_(True)
    return Critic(
        model,
        config,
        learner,
        pad_token_id=pad_token_id,
        total_steps=total_steps,
        guard=guard or BadStepGuard(None, max_bad_steps=learner.optimizer.max_bad_steps),
        ranks=ranks,
    )
