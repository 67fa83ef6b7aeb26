"""The loop of SFT: next rows, gradients summed over micro-batches, update; early stopping if configured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from verl_lite.engine.config.sft import SFTConfig
from verl_lite.engine.learner.device_sums import DeviceSums
from verl_lite.engine.learner.loop_checkpoints import LoopCheckpoints
from verl_lite.engine.learner.optimizer import PolicyOptimizer, decay_start
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.model.weights import trained_parameters
from verl_lite.engine.rundir.checkpoints import copy_of
from verl_lite.engine.sft.data import SFTData
from verl_lite.engine.sft.examples import SFTExample
from verl_lite.engine.sft.loss import as_sample, sft_loss, token_factors, trained_part
from verl_lite.engine.sft.stream import SFTStream
from verl_lite.errors import TrainingError

Measure = Callable[[int], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTStep:
    """One update. `step` counts from 1; `loss` is the batch's, by sft.loss.kind."""

    step: int
    num_steps: int
    loss: float
    grad_norm: float
    learning_rate: float
    num_tokens: int
    num_trained_tokens: int
    is_decaying: bool = False


def train_sft(
    policy: Policy,
    data: SFTData,
    config: SFTConfig,
    *,
    seed: int,
    on_step: Callable[[SFTStep], None] = lambda step: None,
    measure: Measure | None = None,
    checkpoints: LoopCheckpoints | None = None,
) -> int:
    """Train for config.steps or config.epochs; returns the number of updates behind the final weights.

    `measure(step)` returns the validation loss, every `validation.every_steps` steps and at the end. With
    `validation.patience`, training stops after that many measurements without improvement and restores the
    best weights. With `checkpoints`, it resumes from them and raises StopRequested if the user asks to stop.
    Raises TrainingError for a gradient that is not finite.
    """
    num_steps = config.num_steps(data.num_examples)
    optimizer = PolicyOptimizer.of_model(policy.model, config.optimizer, total_steps=num_steps)
    decays = config.optimizer.schedule == "wsd"
    decay_at = decay_start(config.optimizer, num_steps) if decays else num_steps
    stream = SFTStream(data.sources, seed=seed)
    stopping = _EarlyStopping(policy, config, measure)
    first = 0
    if checkpoints is not None:
        first = checkpoints.step
        stopping.load_state_dict(checkpoints.restore(policy.model, optimizer))
    policy.begin_training()
    for step in range(1, num_steps + 1):
        batch = stream.next(config.batch_rows, is_decaying=step > decay_at)
        if step <= first:
            continue
        done = _update(policy, optimizer, batch, config.loss.kind, step=step, num_steps=num_steps)
        on_step(replace(done, is_decaying=step > decay_at))
        if stopping.is_over(step, is_last=step == num_steps):
            break
        if checkpoints is not None:
            checkpoints.after(step, policy.model, optimizer, memory=stopping.state_dict())
    return stopping.restore_best(step)


def _update(
    policy: Policy,
    optimizer: PolicyOptimizer,
    batch: Sequence[SFTExample],
    kind: str,
    *,
    step: int,
    num_steps: int,
) -> SFTStep:
    loss, num_trained = backward(policy, batch, kind)
    learning_rate = optimizer.learning_rate
    norm, is_finite = optimizer.step()
    if not is_finite:
        raise TrainingError(f"SFT step {step}: the gradient is not finite; lower sft.optimizer.learning_rate")
    return SFTStep(
        step=step,
        num_steps=num_steps,
        loss=loss,
        grad_norm=norm,
        learning_rate=learning_rate,
        num_tokens=sum(len(example.input_ids) for example in batch),
        num_trained_tokens=num_trained,
    )


def backward(policy: Policy, batch: Sequence[SFTExample], kind: str) -> tuple[float, int]:
    """Accumulate the gradient of the batch's loss; returns (loss, number of trained tokens)."""
    samples, weights = zip(*(as_sample(example) for example in batch), strict=True)
    factors = token_factors(weights, kind)
    total, num_trained = DeviceSums(), 0
    for micro_batch in policy.micro_batches(samples):
        part, factors_N = trained_part(micro_batch, factors)
        if not len(factors_N):
            continue
        logprobs_N = policy.logprobs(part)
        loss = sft_loss(logprobs_N, factors_N)
        loss.backward()  # type: ignore[no-untyped-call]
        total.add({"loss": loss})
        num_trained += len(factors_N)
    return total.read().get("loss", 0.0), num_trained


class _EarlyStopping:
    """Measures when due, keeps the best weights, and decides when to stop."""

    def __init__(self, policy: Policy, config: SFTConfig, measure: Measure | None) -> None:
        self._policy = policy
        self._validation = config.validation if measure is not None else None
        self._measure = measure
        self._best_loss = float("inf")
        self._best_step = 0
        self._best: dict[str, Tensor] | None = None
        self._num_worse = 0

    def is_over(self, step: int, *, is_last: bool) -> bool:
        validation = self._validation
        if validation is None or self._measure is None:
            return False
        if not is_last and not (validation.every_steps and step % validation.every_steps == 0):
            return False
        loss = self._measure(step)
        self._policy.begin_training()
        if not validation.patience:
            return False
        if loss < self._best_loss:
            self._best_loss, self._best_step, self._num_worse = loss, step, 0
            self._best = copy_of(dict(trained_parameters(self._policy.model)))
        else:
            self._num_worse += 1
        return self._num_worse >= validation.patience

    def state_dict(self) -> dict[str, Any]:
        return {
            "best_loss": self._best_loss,
            "best_step": self._best_step,
            "num_worse": self._num_worse,
            "best": self._best,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; an empty one changes nothing."""
        if state:
            self._best_loss, self._best_step = state["best_loss"], state["best_step"]
            self._num_worse, self._best = state["num_worse"], state["best"]

    @torch.no_grad()
    def restore_best(self, step: int) -> int:
        if self._best is None:
            return step
        for name, parameter in trained_parameters(self._policy.model):
            parameter.copy_(self._best[name])
        return self._best_step
