"""Measurements during SFT: held-out loss, perplexity, and generated answers scored by the rewards."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.sft.examples import SFTExample
from verl_lite.engine.sft.loss import as_sample, trained_part
from verl_lite.engine.types import PromptRow, Sampler
from verl_lite.plugins import SamplerSettings, ScoredRollout
from verl_lite.plugins.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Greedy answers and their scores. `means` has each reward's mean over the answers it scored."""

    rows: Sequence[ScoredRollout]
    means: Mapping[str, float] = field(default_factory=dict)


@torch.no_grad()
def validation_loss(policy: Policy, examples: Sequence[SFTExample]) -> float:
    """Mean -log p of the trained tokens, in nats, unweighted."""
    policy.model.eval()
    samples = [as_sample(example)[0] for example in examples]
    masks = [[float(bit) for bit in sample.loss_mask_T] for sample in samples]
    total, count = 0.0, 0
    for micro_batch in policy.micro_batches(samples):
        part, ones_N = trained_part(micro_batch, masks)
        logprobs_N = policy.logprobs(part)
        total -= float(logprobs_N.sum())
        count += len(ones_N)
    return total / count


def perplexity(loss: float) -> float:
    """exp(loss); infinity if that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf


def answer(
    sampler: Sampler, scorer: Scorer | None, prompts: Sequence[PromptRow], *, max_new_tokens: int
) -> Answers:
    """One greedy answer per prompt, scored if there is a `scorer`."""
    settings = SamplerSettings(temperature=0.0, max_new_tokens=max_new_tokens, seed=0)
    groups = sampler.generate(prompts, num_samples=1, settings=settings)
    rollouts = [rollout for group in groups for rollout in group]
    if scorer is None:
        return Answers(rows=[ScoredRollout(rollout=r, components={}, reward=None) for r in rollouts])
    rows = scorer.score(rollouts).rows
    means = {}
    for name in rows[0].components:
        values = [row.components[name].score.value for row in rows]
        known = [value for value in values if value is not None]
        if known:
            means[name] = sum(known) / len(known)
    return Answers(rows=rows, means=means)
