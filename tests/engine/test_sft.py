"""SFT trains on the answer alone, exactly as transformers' own loss with -100 labels would."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from verl_lite.engine.algorithm_config import LearnerConfig, OptimizerConfig
from verl_lite.engine.config import DatasetConfig, SFTConfig
from verl_lite.engine.data import read_prompts
from verl_lite.engine.policy import Policy
from verl_lite.engine.sft import IGNORED, SFTExample, describe_example, sft_examples, train_sft
from verl_lite.engine.stages import PromptRow
from verl_lite.errors import DataError

ROWS = DatasetConfig(task="arithmetic", num_rows=12)


@pytest.fixture
def examples(tokenizer: Any) -> list[SFTExample]:
    prompts = read_prompts(ROWS, tokenizer, max_prompt_tokens=32, seed=0)
    return sft_examples(prompts, tokenizer, answer="answer", max_tokens=80)


def test_an_example_is_the_template_s_chat_with_the_prompt_masked(
    tokenizer: Any, examples: list[SFTExample]
) -> None:
    prompt = read_prompts(ROWS, tokenizer, max_prompt_tokens=32, seed=0)[0]
    chat = [*prompt.messages, {"role": "assistant", "content": prompt.columns["answer"]}]
    example = examples[0]
    assert example.input_ids == tokenizer.apply_chat_template(chat, return_dict=False)
    cut = len(prompt.prompt_ids)
    assert example.labels[:cut] == [IGNORED] * cut
    assert example.labels[cut:] == example.input_ids[cut:]
    ignored, trained = describe_example(example, tokenizer)
    assert ignored == f"<|user|>{prompt.columns['question']}<|end|><|assistant|>"
    assert trained == f"{prompt.columns['answer']}<|end|>"


@pytest.mark.parametrize("max_tokens", [16_384, 64])
def test_loss_and_gradient_are_those_of_transformers_with_masked_labels(
    small_model: Path, examples: list[SFTExample], max_tokens: int
) -> None:
    reference = AutoModelForCausalLM.from_pretrained(small_model)
    width = max(len(example.input_ids) for example in examples)
    ids = torch.tensor([[*e.input_ids, *[0] * (width - len(e.input_ids))] for e in examples])
    labels = torch.tensor([[*e.labels, *[IGNORED] * (width - len(e.labels))] for e in examples])
    expected = reference(input_ids=ids, labels=labels).loss
    expected.backward()

    ours = AutoModelForCausalLM.from_pretrained(small_model)
    policy = Policy(ours, LearnerConfig(max_tokens_per_micro_batch=max_tokens), pad_token_id=0)
    # with eps far above any gradient, AdamW's first step is -learning_rate * gradient / eps
    optimizer = OptimizerConfig(learning_rate=1.0, max_grad_norm=None, eps=1e3, warmup_steps=0)
    before = {name: p.detach().clone() for name, p in ours.named_parameters()}
    config = SFTConfig(steps=1, batch_rows=len(examples), optimizer=optimizer)
    loss = train_sft(policy, examples, config, seed=0)
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    gradients = {name: p.grad for name, p in reference.named_parameters()}
    for name, parameter in ours.named_parameters():
        moved = (before[name] - parameter.detach()) * 1e3
        torch.testing.assert_close(moved, gradients[name], rtol=2e-2, atol=1e-3)


def test_the_loss_falls_and_the_seed_fixes_the_result(small_model: Path, examples: list[SFTExample]) -> None:
    def run(seed: int) -> tuple[list[float], torch.Tensor]:
        model = AutoModelForCausalLM.from_pretrained(small_model)
        losses: list[float] = []
        config = SFTConfig(steps=15, batch_rows=8, optimizer=OptimizerConfig(learning_rate=1e-2))
        policy = Policy(model, LearnerConfig(), pad_token_id=0)
        train_sft(policy, examples, config, seed=seed, on_step=lambda step, loss: losses.append(loss))
        return losses, model.get_input_embeddings().weight.detach()

    losses, weights = run(0)
    again, same_weights = run(0)
    assert losses[-1] < 0.6 * losses[0]
    assert losses == again
    assert torch.equal(weights, same_weights)
    assert run(1)[0] != losses


def test_answers_that_cannot_be_trained_on(tokenizer: Any) -> None:
    def prompt(answer: object) -> PromptRow:
        return PromptRow(id="7", messages=[], prompt_ids=[1, 2], columns={"answer": answer})

    with pytest.raises(DataError, match="row 7: expected text in column 'answer', got None"):
        sft_examples([prompt(None)], tokenizer, answer="answer", max_tokens=10)
    with pytest.raises(DataError, match="row 7: prompt and answer have 13 tokens"):
        sft_examples([prompt("0123456789")], tokenizer, answer="answer", max_tokens=12)
