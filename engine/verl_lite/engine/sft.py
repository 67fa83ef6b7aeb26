"""The supervised warm-up: the policy learns to write the data set's answers, and only those.

What is trained on is exactly what a rollout would hold: the prompt through the chat template, the
answer's tokens, the end of turn. The prompt's labels are -100 and cost nothing in the loss; rows
are packed without padding. The loss is the mean over the batch's answer tokens, so cutting a batch
into micro-batches changes nothing.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from verl_lite.engine.config import SFTConfig
from verl_lite.engine.optim import PolicyOptimizer
from verl_lite.engine.policy import Policy
from verl_lite.engine.stages import PromptRow, TrainingSample
from verl_lite.errors import DataError, TrainingError

__all__ = ["IGNORED", "SFTExample", "describe_example", "sft_examples", "train_sft"]

IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTExample:
    """One row of SFT. `labels[i]` is `input_ids[i]` where it is trained on and IGNORED elsewhere."""

    input_ids: Sequence[int]
    labels: Sequence[int]

    @property
    def num_prompt_tokens(self) -> int:
        return sum(label == IGNORED for label in self.labels)


def sft_examples(
    prompts: Sequence[PromptRow], tokenizer: Any, *, answer: str, max_tokens: int
) -> list[SFTExample]:
    """One example a prompt from its column `answer`. Raises DataError for one that is no text or too long."""
    examples = []
    for prompt in prompts:
        text = prompt.columns[answer]
        if not isinstance(text, str) or not text:
            raise DataError(f"row {prompt.id}: expected text in column {answer!r}, got {text!r:.80}")
        answer_ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        ids = [*prompt.prompt_ids, *answer_ids]
        if len(ids) > max_tokens:
            raise DataError(
                f"row {prompt.id}: prompt and answer have {len(ids)} tokens, more than "
                f"rollout.max_prompt_tokens + rollout.max_new_tokens = {max_tokens}: the policy could never "
                "write that answer"
            )
        examples.append(SFTExample(input_ids=ids, labels=[IGNORED] * len(prompt.prompt_ids) + answer_ids))
    return examples


def describe_example(example: SFTExample, tokenizer: Any) -> tuple[str, str]:
    """(the text that is not trained on, the text that is), decoded with every special token shown."""
    cut = example.num_prompt_tokens
    return tokenizer.decode(example.input_ids[:cut]), tokenizer.decode(example.labels[cut:])


def train_sft(
    policy: Policy,
    examples: Sequence[SFTExample],
    config: SFTConfig,
    *,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> float:
    """Train for `config.steps`; returns the last loss (nats a token). `on_step(step, loss)` after each.

    Raises TrainingError when the loss or its gradient is no longer finite.
    """
    samples = [_as_sample(example) for example in examples]
    optimizer = PolicyOptimizer(policy.model.parameters(), config.optimizer, total_steps=config.steps)
    generator = random.Random(f"sft:{seed}")
    waiting: list[TrainingSample] = []
    loss = float("nan")
    for step in range(config.steps):
        while len(waiting) < config.batch_rows:  # epochs follow one another without a remainder
            waiting += generator.sample(samples, len(samples))
        batch, waiting = waiting[: config.batch_rows], waiting[config.batch_rows :]
        loss = _backward(policy, batch)
        _, is_finite = optimizer.step()
        if not is_finite:
            raise TrainingError(
                f"SFT step {step}: the gradient is not finite; lower sft.optimizer.learning_rate"
            )
        on_step(step, loss)
    return loss


def _backward(policy: Policy, batch: Sequence[TrainingSample]) -> float:
    """Add the gradient of the batch's mean negative log-likelihood a token; returns that mean."""
    num_tokens = sum(len(sample.completion_ids) for sample in batch)
    total = 0.0
    for micro_batch in policy.micro_batches(batch):
        logprobs_N, _ = policy.logprobs(micro_batch)
        loss = -logprobs_N.sum() / num_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def _as_sample(example: SFTExample) -> TrainingSample:
    cut = example.num_prompt_tokens
    answer_ids = list(example.labels[cut:])
    return TrainingSample(
        prompt_ids=example.input_ids[:cut],
        completion_ids=answer_ids,
        sampler_logprobs_T=(),
        advantages_T=(),
        loss_mask_T=[1] * len(answer_ids),
    )
