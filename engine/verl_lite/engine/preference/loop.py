"""The loop of training on preferences, for any objective.

Every ranking has the same weight in the loss, divided equally among its pairs (InstructGPT,
arXiv:2203.02155, sec. 3.5): a ranking of two is the usual pair. A ranking is never split over forward
passes, so micro-batches change only memory.

Shapes: K completions of a ranking, P its pairs.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from verl_lite.engine.learner.backbone import begin_training
from verl_lite.engine.learner.loop_checkpoints import LoopCheckpoints
from verl_lite.engine.learner.optimizer import PolicyOptimizer
from verl_lite.engine.preference.config import PreferenceConfig
from verl_lite.engine.preference.data import Ranking
from verl_lite.engine.types import TrainingSample
from verl_lite.errors import TrainingError
from verl_lite.lab.statistics import CalibrationBin, calibration_bins, calibration_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One ranking in one forward pass: its loss, and the scores that rank its completions."""

    loss: Tensor
    scores_K: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Held-out metrics, and the accuracy on pairs by the model's confidence."""

    metrics: dict[str, float]
    calibration: list[CalibrationBin]


class Objective(Protocol):
    """A model and a loss on rankings."""

    @property
    def model(self) -> nn.Module: ...

    def score(self, samples: Sequence[TrainingSample]) -> Tensor:
        """The loss's input per sample, in order, with gradients."""

    def loss(self, raw_K: Tensor, ranking: Ranking) -> Scored:
        """One ranking's loss from its part of `score`."""


def num_steps(config: PreferenceConfig, num_rankings: int) -> int:
    """`steps`, or the number that `epochs` need (the next epoch completes the last batch)."""
    return config.steps or max(1, -(-config.epochs * num_rankings // config.batch_rows))


def train_preferences(
    objective: Objective,
    train: Sequence[Ranking],
    held_out: Sequence[Ranking],
    config: PreferenceConfig,
    *,
    on_step: Callable[[int, dict[str, float]], None],
    checkpoints: LoopCheckpoints,
) -> None:
    """Train, continuing from `checkpoints`; calls `on_step(step, metrics)` after each step, from 1.

    The metrics include held-out ones if measured. Raises StopRequested if the user asks to stop, and
    TrainingError for a gradient that is not finite.
    """
    steps = num_steps(config, len(train))
    optimizer = PolicyOptimizer.of_model(objective.model, config.learner.optimizer, total_steps=steps)
    budget = config.learner.max_tokens_per_micro_batch
    batches = _batches(train, config.batch_rows, seed=config.seed)
    checkpoints.restore(objective.model, optimizer)
    for step in range(steps):
        batch = next(batches)
        if step < checkpoints.step:
            continue
        tally = _backward(objective, batch, max_tokens=budget, dropout=config.learner.dropout)
        learning_rate = optimizer.learning_rate
        norm, finite = optimizer.step()
        if not finite:
            raise TrainingError(
                f"step {step}: the gradient is not finite; lower learner.optimizer.learning_rate"
            )
        metrics = tally.means("train")
        metrics |= {"train/grad_norm": norm, "train/learning_rate": learning_rate}
        every = config.evaluate_every_steps
        if held_out and every and (step + 1) % every == 0 and step + 1 < steps:
            metrics |= evaluate(objective, held_out, max_tokens=budget).metrics
        on_step(step + 1, metrics)
        checkpoints.after(step + 1, objective.model, optimizer)


def _backward(objective: Objective, batch: Sequence[Ranking], *, max_tokens: int, dropout: bool) -> "_Tally":
    """Accumulate the gradient of the batch's mean loss."""
    begin_training(objective.model, dropout=dropout)
    tally = _Tally()
    for chunk in _chunks(batch, max_tokens=max_tokens):
        scored = _forward(objective, chunk)
        loss = torch.stack([one.loss for one in scored]).sum() / len(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        tally.add(scored, chunk)
    return tally


@torch.no_grad()
def evaluate(objective: Objective, rankings: Sequence[Ranking], *, max_tokens: int) -> Measured:
    """Metrics on held-out rankings, and calibration: sigmoid(score difference) against accuracy."""
    objective.model.eval()
    tally = _Tally()
    for chunk in _chunks(rankings, max_tokens=max_tokens):
        tally.add(_forward(objective, chunk), chunk)
    confidences = [torch.tensor(abs(d), dtype=torch.float64).sigmoid().item() for d in tally.differences]
    is_right = [difference > 0 for difference in tally.differences]
    error = calibration_error(confidences, is_right)
    assert error is not None
    return Measured(
        metrics=tally.means("held_out") | {"held_out/calibration_error": error},
        calibration=calibration_bins(confidences, is_right, num_bins=20),
    )


def _forward(objective: Objective, rankings: Sequence[Ranking]) -> list[Scored]:
    raw = objective.score([sample for ranking in rankings for sample in ranking.samples])
    parts = torch.split(raw, [len(ranking.samples) for ranking in rankings])
    return [objective.loss(raw_K, ranking) for raw_K, ranking in zip(parts, rankings, strict=True)]


class _Tally:
    """Sums over rankings; a pair weighs 1 / (pairs of its ranking), as in the loss."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._count = 0
        self.differences: list[float] = []

    def add(self, scored: Sequence[Scored], rankings: Sequence[Ranking]) -> None:
        for one, ranking in zip(scored, rankings, strict=True):
            scores = one.scores_K.detach().tolist()
            pairs = [(scores[better], scores[worse]) for better, worse in ranking.pairs]
            self.differences += [first - second for first, second in pairs]
            self._count += 1
            self._sums["loss"] += float(one.loss.detach())
            for first, second in pairs:
                share = 1.0 / len(pairs)
                self._sums["chosen"] += share * first
                self._sums["rejected"] += share * second
                self._sums["margin"] += share * (first - second)
                self._sums["accuracy"] += share * (0.5 if first == second else float(first > second))

    def means(self, prefix: str) -> dict[str, float]:
        return {f"{prefix}/{name}": value / self._count for name, value in self._sums.items()}


def _batches(rankings: Sequence[Ranking], size: int, *, seed: int) -> Iterator[list[Ranking]]:
    """Endless batches, each epoch in a new order; batches may span epochs."""
    generator = random.Random(f"preferences:{seed}")
    waiting: list[Ranking] = []
    while True:
        while len(waiting) < size:
            waiting += generator.sample(list(rankings), len(rankings))
        yield waiting[:size]
        waiting = waiting[size:]


def _chunks(rankings: Sequence[Ranking], *, max_tokens: int) -> Iterator[list[Ranking]]:
    """Chunks of rankings within `max_tokens`; a longer ranking is its own chunk."""
    chunk: list[Ranking] = []
    used = 0
    for ranking in rankings:
        if chunk and used + ranking.num_tokens > max_tokens:
            yield chunk
            chunk, used = [], 0
        chunk.append(ranking)
        used += ranking.num_tokens
    if chunk:
        yield chunk
