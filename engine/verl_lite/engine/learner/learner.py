"""The learner: training samples in, one policy update out.

    mini-batch -> micro-batches -> log-probs -> loss x token weights -> backward -> clip -> AdamW

Token weights are computed over the whole mini-batch, so how it is split into micro-batches and over ranks
changes nothing. Samples whose advantages are all zero are not computed unless a KL or entropy term needs
them; they still count in the denominators.

Shapes: N completion tokens of a micro-batch, T those of one sample.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from verl_lite.engine.algorithm.entropy import EntropyController
from verl_lite.engine.algorithm.importance import (
    has_sampler_logprobs,
    mismatch_means,
    refuse_without_logprobs,
)
from verl_lite.engine.algorithm.kl import KLController
from verl_lite.engine.algorithm.loss_table import policy_loss
from verl_lite.engine.algorithm.objective import component_weights, objective, step_means
from verl_lite.engine.config.algorithm import AlgorithmConfig
from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.learner.bad_steps import BadStepGuard
from verl_lite.engine.learner.critic import make_critic, token_statistics
from verl_lite.engine.learner.device_sums import DeviceSums
from verl_lite.engine.learner.loss_inputs import loss_inputs
from verl_lite.engine.learner.optimizer import PolicyOptimizer
from verl_lite.engine.learner.packing import PackedBatch, by_samples
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.learner.ranks import SINGLE_RANK, Ranks
from verl_lite.engine.learner.reference import make_reference
from verl_lite.engine.learner.resumable import ResumableLearner
from verl_lite.engine.learner.step_samples import StepSamples
from verl_lite.engine.model.lora import add_adapters
from verl_lite.engine.model.weights import float32_master_weights
from verl_lite.engine.types import (
    ComponentName,
    TokenStatistics,
    TrainingSample,
    UpdateStats,
)
from verl_lite.plugins import ScoredRollout

MISMATCH_SAMPLES = 16  # measured where no update has computed log-probabilities


class Learner(ResumableLearner):
    """Owns the policy's weights, its optimiser and the KL controller; a WeightSource for samplers.

    `model` is the initial policy, also the source of the KL reference: a resumed run passes it too, then
    calls `restore`. `total_steps` counts rollout batches; log-probabilities are at the sampling
    `temperature`; batches with nan or inf are written to `bad_batch_dir`. With several `ranks`, every rank
    creates its learner from the same arguments and makes the same calls, with the same results.
    """

    def __init__(
        self,
        model: nn.Module,
        config: LearnerConfig,
        algorithm: AlgorithmConfig,
        *,
        pad_token_id: int,
        total_steps: int,
        temperature: float = 1.0,
        bad_batch_dir: Path | None = None,
        seed: int = 0,
        ranks: Ranks = SINGLE_RANK,
    ) -> None:
        with _seeded(seed):
            model = add_adapters(model, config.lora)
        float32_master_weights(model)
        self.policy = Policy(model, config, pad_token_id=pad_token_id, temperature=temperature, ranks=ranks)
        self._ranks, self._algorithm = ranks, algorithm
        self.kl_controller = KLController(algorithm.kl)
        self.entropy_controller = EntropyController(algorithm.entropy, algorithm.entropy_bonus)
        self._policy_loss = policy_loss(algorithm)
        self._reference = make_reference(self.policy, algorithm.kl)
        self._guard = BadStepGuard(bad_batch_dir, max_bad_steps=config.optimizer.max_bad_steps)
        self._critic = None
        if algorithm.critic is not None:
            shared = {"pad_token_id": pad_token_id, "total_steps": total_steps}
            self._critic = make_critic(
                algorithm.critic, config, model, guard=self._guard, ranks=ranks, **shared
            )
        self.policy.distribute()
        self._optimizer = PolicyOptimizer.of_model(
            model, config.optimizer, total_steps=total_steps * algorithm.epochs * algorithm.mini_batches
        )
        self._generator = torch.Generator().manual_seed(seed)

    def token_statistics(self, scored: Sequence[ScoredRollout]) -> list[TokenStatistics]:
        """Critic values and log-probs for a KL reward, for `estimate_advantages`; empty if not configured."""
        reference = self._reference if self._algorithm.kl.in_reward else None
        return token_statistics(scored, critic=self._critic, policy=self.policy, reference=reference)

    def update(self, samples: Sequence[TrainingSample]) -> UpdateStats:
        """Epochs over mini-batches over micro-batches.

        Metrics are means over the mini-batches; `policy/` metrics over mini-batches with computed tokens.
        A step with nan or inf gradients changes nothing, leaves its batch on disk and counts in
        `learner/bad_steps`; raises TrainingError at the configured number of bad steps.
        """
        started = time.perf_counter()
        refuse_without_logprobs(samples, self._algorithm.importance)
        mismatch: dict[str, float] = {}
        if not all(map(has_sampler_logprobs, samples)):  # measure on the samples that have them
            mismatch = self._mismatch(samples)
            samples = [replace(sample, sampler_logprobs_T=()) for sample in samples]
        is_regularised = self._algorithm.kl.in_loss or self.entropy_controller.bonus != 0.0
        batch = StepSamples(samples, is_regularised=is_regularised)
        critic_only = self._critic is not None and self._critic.is_warming_up
        epochs, parts = 0 if critic_only else self._algorithm.epochs, self._algorithm.mini_batches
        schedule = [chosen for _ in range(epochs) for chosen in batch.mini_batches(parts, self._generator)]
        if not (epochs and batch.teaches_sampled_tokens):  # no update will measure it
            mismatch = mismatch or self._mismatch(batch)
        if self._reference is not None and self._algorithm.kl.in_loss:
            batch.add_reference(self._reference, self.policy.device)
        batch.add_old(self.policy, schedule)
        steps = [self._step(batch, members, keep_old=len(schedule) > 1) for members in schedule]
        if self._reference is not None and schedule:
            self._reference.follow(self.policy.model)
        sums = step_means(steps)
        if "policy/kl_sampler_trainer" not in sums:
            sums |= mismatch
        if self._critic is not None and (valued := [s for s in batch if s.returns_T]):
            sums |= self._critic.update(valued)
        self._after(sums, batch, time.perf_counter() - started)
        return UpdateStats(metrics=dict(sums))

    def _step(self, samples: StepSamples, members: Sequence[int], *, keep_old: bool) -> dict[str, float]:
        """One optimiser step on `members`; with `keep_old`, the samples keep their old log-probs."""
        self.policy.begin_training()
        per_member = component_weights([samples[i] for i in members], self._algorithm)
        weights = {name: dict(zip(members, of, strict=True)) for name, of in per_member.items()}
        active = [i for i in members if samples.is_active(i)]
        sums, old = DeviceSums(), list[tuple[Tensor, PackedBatch]]()
        for micro in self.policy.micro_batches([samples[i] for i in active]):
            indices = [active[i] for i in micro.sample_indices]
            loss, metrics, logprobs_N = self._loss(samples, indices, micro, weights)
            loss.backward()  # type: ignore[no-untyped-call]
            sums.add(metrics if indices else {})
            if keep_old:
                old.append((logprobs_N, micro))
        self._ranks.all_reduce_gradients(self.policy.model.parameters())
        numbers = sums.read(norm=self._optimizer.gradient_norm())  # the only wait for the GPU of a step
        norm, finite = self._optimizer.step(numbers.pop("norm")) if active else (0.0, True)
        if not finite:
            self._guard.record([samples[i] for i in members], norm)
        if keep_old:
            known = self._ranks.all_gather(by_samples(old, [samples[i] for i in active]))
            samples.keep_old({active[at]: old_T for at, old_T in known.items()})
        counted = sum(sum(samples[i].loss_mask_T) for i in active)
        totals = self._ranks.all_reduce_sum(numbers)
        result = {n: v for n, v in totals.items() if n.startswith("loss/")}
        if counted:  # else there is nothing to say of the policy: 0 would be read as no entropy
            result |= {n: v / counted for n, v in totals.items() if n not in result}
        result["learner/grad_norm"] = norm if finite else 0.0
        result["learner/active_fraction"] = len(active) / max(len(members), 1)
        return result

    def _loss(
        self,
        samples: Sequence[TrainingSample],
        indices: Sequence[int],
        micro: PackedBatch,
        weights: Mapping[ComponentName, Mapping[int, float]],
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """(loss, metrics, logprobs_N) of the samples at `indices`; `weights` by component and sample."""
        chosen = [samples[i] for i in indices]
        per_sample = {name: [of[i] for i in indices] for name, of in weights.items()}
        batch, terms = loss_inputs(self.policy, micro, chosen, per_sample)
        if self._reference is None:
            terms = replace(terms, ref_logprobs_N=None)
        loss, metrics = objective(
            batch,
            terms,
            policy_loss=self._policy_loss,
            config=self._algorithm,
            kl_coefficient=self.kl_controller.coefficient,
            entropy_bonus=self.entropy_controller.bonus,
        )
        return loss, metrics, batch.logprobs_N.detach()

    def _mismatch(self, samples: Sequence[TrainingSample]) -> dict[str, float]:
        """The sampler-trainer mismatch, by an extra forward pass over a few samples."""
        measured = [s for s in samples if s.sampler_logprobs_T and s.is_in_policy][:MISMATCH_SAMPLES]
        return mismatch_means(measured, self.policy.completion_logprobs(measured)) if measured else {}

    def _after(self, metrics: dict[str, float], samples: Sequence[TrainingSample], seconds: float) -> None:
        num_tokens = sum(len(sample.completion_ids) for sample in samples)
        own = [sample for sample in samples if sample.is_in_policy]
        if "policy/kl_reference" in metrics and own:
            own_tokens = sum(len(sample.completion_ids) for sample in own)
            per_completion = metrics["policy/kl_reference"] * own_tokens / len(own)
            self.kl_controller.update(per_completion, num_samples=len(own))
        if "policy/entropy" in metrics:
            self.entropy_controller.update(metrics["policy/entropy"])
        metrics["policy/entropy_bonus"] = self.entropy_controller.bonus
        metrics["policy/kl_coefficient"] = self.kl_controller.coefficient
        metrics["learner/learning_rate"] = self._optimizer.learning_rate
        metrics["learner/bad_steps"] = float(self._guard.num_bad_steps)
        metrics["learner/tokens_per_s"] = num_tokens / seconds

    @property
    def notes(self) -> list[str]:
        """See PolicyLearner.notes."""
        bodies = [self.policy, *([self._critic.body] if self._critic is not None else [])]
        return list(dict.fromkeys(body.arrangement.note for body in bodies if body.arrangement.note))

    @property
    def kl_coefficient(self) -> float:
        """The current weight of the KL term."""
        return self.kl_controller.coefficient

    def close(self) -> None:
        """Nothing to close: the learner lives in this process."""

    def scale_learning_rate(self, scale: float) -> None:
        """Multiply the policy's scheduled learning rate by `scale` from now on; not part of the state."""
        self._optimizer.rate_scale = scale


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Inside, torch draws from `seed`: the same numbers on every rank."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
