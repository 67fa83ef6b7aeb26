"""PPO's critic: a language model and a linear value head on its hidden states, with its own optimiser.

The value at token t is that of the state before it, read from the hidden state that predicts token t.

Departures from PPO (arXiv:1707.06347) and its usual code: the head's weights start at 0 and its bias at
the mean reward of the first batch, so the first values are that baseline. With a bias of 0 the first
gradients are twenty times larger than later ones and all point the same way: they move the whole model
towards the mean and inflate AdamW's second moments, which shortens later steps (both measured:
benchmarks/results/quickstart.md). The value loss is averaged over the batch's counted tokens; clipping
around the value at sampling time is optional (`value_clip: null`).

Shapes: N completion tokens of a micro-batch, S its samples, D hidden.
"""

import copy
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.algorithm.losses import counted, token_weights
from verl_lite.engine.algorithm.trajectories import bare_samples
from verl_lite.engine.config.algorithm import CriticConfig
from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.learner.bad_steps import BadStepGuard
from verl_lite.engine.learner.device_sums import DeviceSums
from verl_lite.engine.learner.finite import refuse_not_finite
from verl_lite.engine.learner.optimizer import PolicyOptimizer
from verl_lite.engine.learner.packing import PackedBatch, by_samples, token_column
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.learner.ranks import SINGLE_RANK, Ranks
from verl_lite.engine.learner.reference import ReferencePolicy
from verl_lite.engine.model.compatibility import check_critic_vocabulary
from verl_lite.engine.model.folder import load_policy
from verl_lite.engine.model.weights import base_model, float32_master_weights
from verl_lite.engine.types import PreTrainedModel, TokenStatistics, TrainingSample, is_trainable
from verl_lite.errors import ConfigError, DataError
from verl_lite.plugins import ScoredRollout


def value_loss(values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, *, clip: float | None) -> Tensor:
    """Half the squared error per token; with `clip`, the larger of that and the clipped value's.

    >>> one = torch.ones(1)
    >>> value_loss(one, 0 * one, 2 * one, clip=None), value_loss(one, 0 * one, 2 * one, clip=0.5)
    (tensor([0.5000]), tensor([1.1250]))
    """
    error_N = (values_N - returns_N).square()
    if clip is not None:
        bounded_N = old_values_N + (values_N - old_values_N).clamp(-clip, clip)
        error_N = torch.maximum(error_N, (bounded_N - returns_N).square())
    return error_N / 2


def explained_variance(values_N: Tensor, returns_N: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than a constant; never nan."""
    variance = returns_N.var(correction=0) if len(returns_N) else torch.zeros(())
    if float(variance) == 0.0:
        return 0.0
    return float(1.0 - (returns_N - values_N).var(correction=0) / variance)


class Critic:
    """Predicts values of completions and regresses them on the returns."""

    def __init__(
        self,
        model: nn.Module,
        config: CriticConfig,
        learner: LearnerConfig,
        *,
        pad_token_id: int,
        total_steps: int,
        guard: BadStepGuard,
        ranks: Ranks = SINGLE_RANK,
    ) -> None:
        float32_master_weights(model)
        self._config = config
        self._guard = guard
        self._ranks = ranks
        self.body = Policy(model, learner, pad_token_id=pad_token_id, ranks=ranks)
        hidden_size = model.get_output_embeddings().weight.shape[1]  # type: ignore[operator]
        reference = next(model.parameters())
        self._head = nn.Linear(hidden_size, 1, device=reference.device, dtype=reference.dtype)
        nn.init.zeros_(self._head.weight)
        nn.init.zeros_(self._head.bias)
        self.body.distribute()
        ranks.distribute(self._head)
        optimizer = learner.optimizer.model_copy(
            update={"learning_rate": config.learning_rate, "name": "adamw"}
        )
        self._parameters = [*model.parameters(), *self._head.parameters()]
        self._optimizer = PolicyOptimizer(
            self._parameters, optimizer, total_steps=total_steps * config.epochs
        )
        self.num_updates = 0

    @torch.no_grad()
    def init_values(self, value: float) -> None:
        """Predict `value` for every token. Does nothing after the first update."""
        if not self._optimizer.num_steps:
            self._head.bias.fill_(value)

    @property
    def is_warming_up(self) -> bool:
        """Whether the critic still trains alone."""
        return self.num_updates < self._config.warmup_steps

    @torch.no_grad()
    def values(self, samples: Sequence[TrainingSample]) -> list[Sequence[float]]:
        """The value at every completion token, per sample."""
        self.body.model.eval()
        parts = [(self._values(batch), batch) for batch in self.body.micro_batches(samples)]
        found = self._ranks.all_gather(by_samples(parts, samples))
        return [found[index] for index in range(len(samples))]

    def update(self, samples: Sequence[TrainingSample]) -> dict[str, float]:
        """Regress on `returns_T`. Returns the last epoch's metrics, with the bad steps of all epochs.

        An epoch with nan or inf gradients changes nothing and is recorded by the guard.
        """
        metrics: dict[str, float] = {}
        num_bad = 0.0
        for _ in range(self._config.epochs):
            metrics = self._epoch(samples)
            num_bad += metrics["critic/bad_steps"]
        metrics["critic/bad_steps"] = num_bad
        self.num_updates += 1
        mask = torch.tensor([bit for sample in samples for bit in sample.loss_mask_T]) > 0
        returns = torch.tensor([value for sample in samples for value in sample.returns_T])[mask]
        old_values = torch.tensor([value for sample in samples for value in sample.values_T])[mask]
        metrics["critic/explained_variance"] = explained_variance(old_values, returns)
        metrics["critic/value"] = float(old_values.mean()) if len(old_values) else 0.0
        return metrics

    def _epoch(self, samples: Sequence[TrainingSample]) -> dict[str, float]:
        weights = token_weights([sum(sample.loss_mask_T) for sample in samples], "token_mean")
        sums = DeviceSums()
        self.body.begin_training()
        for batch in self.body.micro_batches(samples):
            values_N = self._values(batch)
            chosen = [samples[index] for index in batch.sample_indices]
            mask_N = token_column((s.loss_mask_T for s in chosen), values_N)
            returns_N = counted(token_column((s.returns_T for s in chosen), values_N), mask_N)
            old_values_N = counted(token_column((s.values_T for s in chosen), values_N), mask_N)
            weights_N = token_column([[weights[i] for i in batch.sample_indices]], values_N)[batch.sequence_N]
            loss_N = value_loss(values_N, old_values_N, returns_N, clip=self._config.value_clip)
            loss = (loss_N * weights_N * mask_N).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            sums.add({"loss/critic": loss})
        self._ranks.all_reduce_gradients(self._parameters)
        numbers = sums.read(norm=self._optimizer.gradient_norm())
        norm, finite = self._optimizer.step(numbers.pop("norm"))
        if not finite:
            self._guard.record(samples, norm)
        metrics = {"loss/critic": 0.0, **self._ranks.all_reduce_sum(numbers)}
        metrics["critic/grad_norm"] = norm if finite else 0.0
        metrics["critic/bad_steps"] = float(not finite)
        return metrics

    def _values(self, batch: PackedBatch) -> Tensor:
        with self.body.autocast():
            hidden_ND = self.body.hidden(batch)
            values_N1: Tensor = self._ranks.forward(self._head, self._head.forward, hidden_ND)
            return values_N1.squeeze(1).float()

    def init_moments(self) -> None:
        """See PolicyOptimizer.init_moments."""
        self._optimizer.init_moments()

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.body.model.state_dict(),
            "head": self._head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.body.model.load_state_dict(state["model"])
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
    ranks: Ranks = SINGLE_RANK,
) -> Critic:
    """The critic that `config` names: its own model, or a copy of the policy's current weights.

    All its weights are trained; under LoRA the copy is the base without adapters. Call it before the policy's
    weights are distributed over the ranks. `guard` records bad steps (default: a new one without a folder).
    """
    return Critic(
        _critic_model(config, policy).requires_grad_(True),
        config,
        learner,
        pad_token_id=pad_token_id,
        total_steps=total_steps,
        guard=guard or BadStepGuard(None, max_bad_steps=learner.optimizer.max_bad_steps),
        ranks=ranks,
    )


def _critic_model(config: CriticConfig, policy: nn.Module) -> PreTrainedModel:
    causal = base_model(policy)
    if not config.model:
        has_adapters = hasattr(policy, "disable_adapter")
        return copy.deepcopy(policy).unload() if has_adapters else copy.deepcopy(causal)  # type: ignore[operator]
    try:
        model = load_policy(config.model, dtype="float32", device=torch.device("cpu"))
    except DataError as error:
        raise ConfigError(f"algorithm.critic.model={config.model}: {error}") from None
    check_critic_vocabulary(config.model, model.config.vocab_size, needed=causal.config.vocab_size)
    return model.to(next(causal.parameters()).device)


def token_statistics(
    scored: Sequence[ScoredRollout],
    *,
    critic: Critic | None,
    policy: Policy,
    reference: ReferencePolicy | None,
) -> list[TokenStatistics]:
    """Per row: the values of a `critic`, both models' log-probs with a `reference`; empty without them."""
    wanted = [i for i, row in enumerate(scored) if is_trainable(row)]
    stats = [TokenStatistics()] * len(scored)
    if not wanted or (critic is None and reference is None):
        return stats
    made = [(i, sample) for i in wanted for sample in bare_samples(scored[i].rollout)]
    samples = [sample for _, sample in made]
    values = old = ref = list[Sequence[float]]([()]) * len(samples)
    if critic is not None:
        rewards = (scored[i].reward for i in wanted)
        critic.init_values(fmean(reward for reward in rewards if reward is not None))
        values = critic.values(samples)
        refuse_not_finite("the critic", samples, values, what="value")
    if reference is not None:
        old = policy.completion_logprobs(samples)
        ref = reference.completion_logprobs(samples, device=policy.device)
        refuse_not_finite("the policy", samples, old)
    for (index, _), old_T, ref_T, values_T in zip(made, old, ref, values, strict=True):
        before = stats[index]  # of the row's samples so far
        stats[index] = TokenStatistics(
            old_logprobs_T=[*before.old_logprobs_T, *old_T],
            ref_logprobs_T=[*before.ref_logprobs_T, *ref_T],
            values_T=[*before.values_T, *values_T],
        )
    return stats
