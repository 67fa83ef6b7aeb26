"""The learner: training samples in, one policy update out.

    mini-batch -> micro-batches -> log-probs -> loss x token weights -> backward -> clip -> AdamW

Token weights are computed over the whole mini-batch, so how it is split into micro-batches and over ranks
changes nothing. Samples whose advantages are all zero are not computed unless a KL or entropy term needs
them; they still count in the denominators.

Shapes: N completion tokens of a micro-batch, T those of one sample.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.algorithm.entropy import EntropyController
from verl_lite.engine.algorithm.importance import (
    has_sampler_logprobs,
    mismatch_means,
    refuse_without_logprobs,
)
from verl_lite.engine.algorithm.kl import KLController
from verl_lite.engine.algorithm.losses import policy_loss
from verl_lite.engine.algorithm.objective import component_weights, objective, step_means
from verl_lite.engine.algorithm.trajectories import bare_samples
from verl_lite.engine.config.algorithm import AlgorithmConfig
from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.learner.bad_steps import BadStepGuard
from verl_lite.engine.learner.checkpoint import is_sharded, saved_state, start_saving
from verl_lite.engine.learner.critic import Critic, make_critic
from verl_lite.engine.learner.device_sums import DeviceSums
from verl_lite.engine.learner.loss_inputs import loss_inputs
from verl_lite.engine.learner.muon import hidden_matrices
from verl_lite.engine.learner.optimizer import PolicyOptimizer
from verl_lite.engine.learner.packing import PackedBatch, by_samples
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.learner.policy_weights import PolicyWeights
from verl_lite.engine.learner.ranks import SINGLE_RANK, Ranks
from verl_lite.engine.learner.reference import make_reference
from verl_lite.engine.model.lora import adapter_weights, add_adapters
from verl_lite.engine.model.weights import base_model, float32_master_weights
from verl_lite.engine.types import (
    ComponentName,
    Tokenizer,
    TokenStatistics,
    TrainingSample,
    UpdateStats,
    WeightSource,
    is_trainable,
)
from verl_lite.plugins import ScoredRollout

MISMATCH_SAMPLES = 16  # measured where no update has computed log-probabilities


class Learner(PolicyWeights):
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
        self._ranks = ranks
        self.kl_controller = KLController(algorithm.kl)
        self.entropy_controller = EntropyController(algorithm.entropy, algorithm.entropy_bonus)
        self._algorithm = algorithm
        self._policy_loss = policy_loss(algorithm)
        self._reference = make_reference(
            self.policy, config, algorithm, pad_token_id=pad_token_id, temperature=temperature, ranks=ranks
        )
        self._guard = BadStepGuard(bad_batch_dir, max_bad_steps=config.optimizer.max_bad_steps)
        self._critic: Critic | None = None
        if algorithm.critic is not None:
            self._critic = make_critic(
                algorithm.critic,
                config,
                model,
                pad_token_id=pad_token_id,
                total_steps=total_steps,
                guard=self._guard,
                ranks=ranks,
            )
        self.policy.distribute()
        num_updates = total_steps * algorithm.epochs * algorithm.mini_batches
        self._optimizer = PolicyOptimizer(
            model.parameters(),
            config.optimizer,
            total_steps=num_updates,
            hidden=hidden_matrices(base_model(model)),
        )
        self._generator = torch.Generator().manual_seed(seed)

    def token_statistics(self, scored: Sequence[ScoredRollout]) -> list[TokenStatistics]:
        """Critic values and log-probs for a KL reward, for `estimate_advantages`; empty if not configured."""
        kl_in_reward = self._algorithm.kl.in_reward
        wanted = [i for i, row in enumerate(scored) if is_trainable(row)]
        if not wanted or (self._critic is None and not kl_in_reward):
            return [TokenStatistics()] * len(scored)
        made = [(i, sample) for i in wanted for sample in bare_samples(scored[i].rollout)]
        samples = [sample for _, sample in made]
        if self._critic is not None:
            rewards = (scored[i].reward for i in wanted)
            self._critic.init_values(fmean(reward for reward in rewards if reward is not None))
        nothing: list[list[float]] = [[]] * len(samples)
        values = self._critic.values(samples) if self._critic is not None else nothing
        old = ref = nothing
        if kl_in_reward:
            assert self._reference is not None
            old = self.policy.completion_logprobs(samples)
            ref = self._reference.completion_logprobs(samples, device=self.policy.device)
        stats = [TokenStatistics()] * len(scored)
        for (index, _), old_T, ref_T, values_T in zip(made, old, ref, values, strict=True):
            before = stats[index]  # of the row's samples so far
            stats[index] = TokenStatistics(
                old_logprobs_T=[*before.old_logprobs_T, *old_T],
                ref_logprobs_T=[*before.ref_logprobs_T, *ref_T],
                values_T=[*before.values_T, *values_T],
            )
        return stats

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
        critic_only = self._critic is not None and self._critic.is_warming_up
        epochs = 0 if critic_only else self._algorithm.epochs
        schedule = [members for _ in range(epochs) for members in self._mini_batches(samples)]
        samples = self._with_reference(samples)
        samples = self._with_old_logprobs(samples, later=schedule[1:], first=schedule[0] if schedule else [])
        steps: list[dict[str, float]] = []
        for members in schedule:
            metrics, samples = self._step(samples, members, keep_old=len(schedule) > 1)
            steps.append(metrics)
        if self._algorithm.kl.reference == "ema" and self._reference is not None and schedule:
            self._reference.follow(self.policy.model, decay=self._algorithm.kl.ema_decay)
        sums = step_means(steps)
        if "policy/kl_sampler_trainer" not in sums:  # no sample had a gradient
            sums |= mismatch or self._mismatch(samples)
        if self._critic is not None and (valued := [s for s in samples if s.returns_T]):
            sums |= self._critic.update(valued)
        self._after(sums, samples, time.perf_counter() - started)
        return UpdateStats(metrics=dict(sums))

    def _step(
        self, samples: Sequence[TrainingSample], members: Sequence[int], *, keep_old: bool
    ) -> tuple[dict[str, float], Sequence[TrainingSample]]:
        """One optimiser step on `members`; with `keep_old`, returns the samples with their old log-probs."""
        self.policy.begin_training()
        per_member = component_weights([samples[i] for i in members], self._algorithm)
        weights = {name: dict(zip(members, of, strict=True)) for name, of in per_member.items()}
        active = [i for i in members if self._is_active(samples[i])]
        sums, old = DeviceSums(), list[tuple[Tensor, PackedBatch]]()
        samples = list(samples)
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
            _keep_old_logprobs(samples, {active[at]: old_T for at, old_T in known.items()})
        counted = sum(sum(samples[i].loss_mask_T) for i in active)
        totals = self._ranks.all_reduce_sum(numbers)
        result = {n: v if n.startswith("loss/") else v / max(counted, 1) for n, v in totals.items()}
        result["learner/grad_norm"] = norm if finite else 0.0
        result["learner/active_fraction"] = len(active) / max(len(members), 1)
        return result, samples

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

    def _is_active(self, sample: TrainingSample) -> bool:
        """Whether the sample contributes a gradient."""
        if any(any(weights_T) for weights_T in sample.components.values()):
            return True
        if not sample.is_in_policy:
            return False
        return self._algorithm.kl.in_loss or self.entropy_controller.bonus != 0.0 or any(sample.advantages_T)

    def _mini_batches(self, samples: Sequence[TrainingSample]) -> Iterator[list[int]]:
        """Sample indices per mini-batch: whole groups, reshuffled each epoch, as even as groups allow."""
        groups: dict[str, list[int]] = defaultdict(list)
        for index, sample in enumerate(samples):
            groups[sample.group or str(index)].append(index)
        members = list(groups.values())
        count = min(self._algorithm.mini_batches, len(members))
        if count > 1:
            order = torch.randperm(len(members), generator=self._generator).tolist()
            members = [members[at] for at in order]
        for part in range(count):
            chunk = members[part * len(members) // count : (part + 1) * len(members) // count]
            yield [index for group in chunk for index in group]

    def _with_reference(self, samples: Sequence[TrainingSample]) -> list[TrainingSample]:
        needed = [i for i, s in enumerate(samples) if s.is_in_policy and not s.ref_logprobs_T]
        if self._reference is None or not self._algorithm.kl.in_loss or not needed:
            return list(samples)
        found = self._reference.completion_logprobs([samples[i] for i in needed], device=self.policy.device)
        known = dict(zip(needed, found, strict=True))
        return [replace(s, ref_logprobs_T=known[i]) if i in known else s for i, s in enumerate(samples)]

    def _with_old_logprobs(
        self, samples: list[TrainingSample], *, first: Sequence[int], later: Sequence[Sequence[int]]
    ) -> list[TrainingSample]:
        """Add pre-update log-probs for `later` mini-batches; `first` gets its own from its forward pass."""
        needed = sorted({i for members in later for i in members} - set(first))
        in_policy = [i for i in needed if samples[i].is_in_policy and self._is_active(samples[i])]
        missing = [i for i in in_policy if not samples[i].old_logprobs_T]
        if missing:
            logprobs = self.policy.completion_logprobs([samples[i] for i in missing])
            _keep_old_logprobs(samples, dict(zip(missing, logprobs, strict=True)))
        return samples

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

    def start_saving(self, folder: Path, tokenizer: Tokenizer) -> Callable[[], None]:
        """See PolicyLearner.start_saving."""
        return start_saving(self, folder, tokenizer)

    def restore(self, folder: Path) -> None:
        """See PolicyLearner.restore; the checkpoint may come from any number of ranks."""
        if is_sharded(folder):
            from verl_lite.engine.learner.sharded_checkpoint import read_sharded

            self.load_state_dict(read_sharded(self.template(), folder))
        else:
            self.load_state_dict(saved_state(folder, dtype=next(self.policy.model.parameters()).dtype))

    def template(self) -> dict[str, Any]:
        """A state dict with every tensor that later states have; moments may be zeros."""
        self._optimizer.init_moments()
        if self._critic is not None:
            self._critic.init_moments()
        return self.state_dict()

    def close(self) -> None:
        """Nothing to close: the learner lives in this process."""

    def scale_learning_rate(self, scale: float) -> None:
        """Multiply the policy's scheduled learning rate by `scale` from now on; not part of the state."""
        self._optimizer.rate_scale = scale

    @property
    def ema(self) -> WeightSource | None:
        """The moving average as a source of weights; None without one."""
        if self._algorithm.kl.reference != "ema" or self._reference is None:
            return None
        return PolicyWeights(self._reference.policy)

    def adapter_weights(self) -> Iterator[tuple[str, Tensor]]:
        """(PEFT name, tensor) of the LoRA adapters alone, for samplers that serve adapters."""
        return adapter_weights(self.policy.model)

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact resume needs: weights, moments, controller, generator."""
        return {
            "model": self._trained_state(),
            "optimizer": self._optimizer.state_dict(),
            "kl_controller": self.kl_controller.state_dict(),
            "entropy_controller": self.entropy_controller.state_dict(),
            **self._ema_state(),
            "num_bad_steps": self._guard.num_bad_steps,
            "generator": self._generator.get_state(),
            "critic": self._critic.state_dict() if self._critic is not None else None,
        }

    def _ema_state(self) -> dict[str, dict[str, Tensor]]:
        """The moving average, which only an EMA has to save: other references are made again."""
        if self._algorithm.kl.reference != "ema" or self._reference is None:
            return {}
        names = self._trained_state()
        state = self._reference.policy.model.state_dict()
        return {"ema": {name: value for name, value in state.items() if name in names}}

    def _trained_state(self) -> dict[str, Tensor]:
        """The weights that change: under LoRA only the adapters."""
        model = self.policy.model
        every = model.named_parameters(remove_duplicate=False)  # tied weights have two names
        frozen = {name for name, p in every if not p.requires_grad}
        parts = model.state_dict()
        return {
            name: value
            for name, value in parts.items()
            if not any(name == one or name.startswith(f"{one}.") for one in frozen)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of `state_dict`."""
        own = self._trained_state()
        if own.keys() != state["model"].keys():
            raise ValueError("the state belongs to a model of another shape or with other adapters")
        self.policy.model.load_state_dict(state["model"], strict=False)
        if self._reference is not None and "ema" in state:
            self._reference.policy.model.load_state_dict(state["ema"], strict=False)
        self._optimizer.load_state_dict(state["optimizer"])
        self.kl_controller.load_state_dict(state["kl_controller"])
        self.entropy_controller.load_state_dict(state["entropy_controller"])
        self._guard.num_bad_steps = int(state["num_bad_steps"])
        self._generator.set_state(state["generator"])
        if self._critic is not None:
            self._critic.load_state_dict(state["critic"])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Inside, torch draws from `seed`: the same numbers on every rank."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _keep_old_logprobs(samples: list[TrainingSample], old: Mapping[int, list[float]]) -> None:
    for index, old_T in old.items():
        if not samples[index].old_logprobs_T:
            samples[index] = replace(samples[index], old_logprobs_T=old_T)
