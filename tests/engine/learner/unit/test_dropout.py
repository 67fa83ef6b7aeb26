"""Dropout is off in updates, whatever the model's config says, and on where the run's config asks for it."""

import random
from typing import Any

import pytest
import torch
from torch import nn

from verl_lite.engine import TrainingSample
from verl_lite.engine.config import AlgorithmConfig, LearnerConfig, LoraConfig, OptimizerConfig, SFTConfig
from verl_lite.engine.learner import Learner, Policy
from verl_lite.engine.learner.backbone import begin_training
from verl_lite.engine.testing import FAMILIES, family_config

NAMES = {
    "llama": ["attention_dropout"],
    "gpt2": ["resid_pdrop", "embd_pdrop", "attn_pdrop"],
    "phi": ["resid_pdrop", "embd_pdrop", "attention_dropout"],
    "gpt-neox": ["hidden_dropout", "attention_dropout"],
    "falcon": ["hidden_dropout", "attention_dropout"],
    "opt": ["dropout", "attention_dropout", "layerdrop"],
    "granite-moe": ["attention_dropout"],
}


def model_that_drops(family: str, names: list[str], rate: float = 0.3) -> nn.Module:
    from transformers import AutoModelForCausalLM

    config = family_config(family)
    for name in names:
        assert isinstance(getattr(config, name), (int, float)), f"{family} has no {name}"
        setattr(config, name, rate)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def samples() -> list[TrainingSample]:
    rng = random.Random(0)
    found = []
    for group in range(4):
        prompt = rng.choices(range(13, 50), k=9)
        for advantage in (1.0, -1.0):
            completion = rng.choices(range(13, 50), k=rng.randint(3, 12))
            found.append(
                TrainingSample(
                    prompt_ids=prompt,
                    completion_ids=completion,
                    advantages_T=[advantage] * len(completion),
                    loss_mask_T=[1] * len(completion),
                    group=f"g{group}",
                )
            )
    return found


def first_update(model: nn.Module, **learner: Any) -> dict[str, float]:
    """Two mini-batches against log-probabilities from before, at a learning rate that changes nothing."""
    learner_of = Learner(
        model,
        LearnerConfig(optimizer=OptimizerConfig(learning_rate=1e-30), **learner),
        AlgorithmConfig(mini_batches=2, clip_low=0.01, clip_high=0.01, kl={"coefficient": 0.1}),
        pad_token_id=0,
        total_steps=1,
    )
    return dict(learner_of.update(samples()).metrics)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", NAMES)
def test_before_anything_is_learned_nothing_differs(family: str, checkpointing: bool) -> None:
    assert family in FAMILIES
    metrics = first_update(model_that_drops(family, NAMES[family]), gradient_checkpointing=checkpointing)
    assert metrics["policy/kl_reference"] == pytest.approx(0.0, abs=1e-9)
    assert metrics["policy/ratio"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["policy/clip_fraction"] == 0.0


@pytest.mark.parametrize("family", NAMES)
def test_dropout_where_it_is_asked_for(family: str) -> None:
    metrics = first_update(model_that_drops(family, NAMES[family]), dropout=True)
    assert metrics["policy/kl_reference"] > 1e-4
    assert metrics["policy/clip_fraction"] > 0.05


def test_gradient_checkpointing_recomputes_without_dropout() -> None:
    """OPT's layers drop by themselves, and their decoder leaves whole layers out."""
    model = model_that_drops("opt", NAMES["opt"])
    policy = Policy(model, LearnerConfig(gradient_checkpointing=True), pad_token_id=0)
    calls: list[int] = []
    for layer in model.model.decoder.layers:
        layer.fc1.register_forward_hook(lambda *_: calls.append(1))
    policy.begin_training()
    (batch,) = policy.micro_batches(samples())
    logprobs_N = policy.logprobs(batch)
    assert len(calls) == 2
    logprobs_N.sum().backward()
    assert len(calls) == 4  # recomputed
    exact = dict(enumerate(policy.completion_logprobs(samples())))
    found = torch.split(logprobs_N, [len(samples()[i].completion_ids) for i in batch.sample_indices])
    for index, part in zip(batch.sample_indices, found, strict=True):
        assert part.tolist() == pytest.approx(exact[index], abs=1e-5)


def test_the_dropout_of_adapters_needs_the_switch() -> None:
    lora = LoraConfig(rank=2, dropout=0.1)
    message = r"lora\.dropout=0\.1 does nothing while dropout is off.*dropout: true"
    for config in (LearnerConfig, SFTConfig):
        with pytest.raises(ValueError, match=message):
            config(lora=lora)
        assert config(lora=lora, dropout=True).dropout


def test_modes_without_and_with_dropout() -> None:
    model = model_that_drops("gpt2", NAMES["gpt2"])
    begin_training(model, dropout=False)
    assert not any(module.training for module in model.modules())
    begin_training(model, dropout=True)
    assert all(module.training for module in model.modules())
