"""One engine stepped by hand: weights change in the middle of sequences, caches must not outlive them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine.config import AlgorithmConfig, LearnerConfig, LoraConfig, RolloutConfig, VllmConfig
from verl_lite.engine.learner import Learner
from verl_lite.engine.rollout import FinishedSequence, SequenceRequest
from verl_lite.plugins import SamplerSettings

PROMPT = tuple(range(10, 60))


@pytest.mark.slow
def test_a_prefix_cache_of_older_weights_is_not_read(small_model: Path, source: Any) -> None:
    from verl_lite.engine.rollout import VllmEngine

    vllm = VllmConfig(kv_cache_gib=0.1, prefix_caching=True)
    engine = VllmEngine(
        str(small_model), RolloutConfig(max_prompt_tokens=64, max_new_tokens=64, vllm=vllm), seed=0
    )
    settings = SamplerSettings(max_new_tokens=30, seed=3)
    request = SequenceRequest(id="a", prompt_ids=PROMPT, settings=settings, ignore_end=True)
    engine.add([request])
    for _ in range(10):
        assert engine.step() == []
    with torch.no_grad():  # other keys and values, other tokens
        source.move(seed=4, scale=0.05)
    engine.load(source.named_weights(), version=1)
    finished: list[FinishedSequence] = []
    while engine.num_unfinished:
        finished += engine.step()
    (mixed,) = finished
    assert mixed.token_versions == [0] * 10 + [1] * 20
    # everything before was computed again: the new tokens are the new model's own, as from the start
    ids = [*PROMPT, *mixed.token_ids]
    assert mixed.logprobs[10:] == pytest.approx(source.token_logprobs(ids)[len(PROMPT) + 9 :], abs=1e-4)
    assert engine.token_logprobs(PROMPT) == pytest.approx(source.token_logprobs(PROMPT), abs=1e-5)
    engine.close()


@pytest.mark.slow
def test_sequences_under_way_go_on_under_new_adapters(small_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    from verl_lite.engine.rollout import VllmEngine

    lora = LoraConfig(rank=4, alpha=16)
    model = AutoModelForCausalLM.from_pretrained(small_model)
    learner = Learner(model, LearnerConfig(lora=lora), AlgorithmConfig(), pad_token_id=0, total_steps=1)
    config = RolloutConfig(max_prompt_tokens=64, max_new_tokens=64, vllm=VllmConfig(kv_cache_gib=0.1))
    engine = VllmEngine(str(small_model), config, seed=0, lora=lora)
    settings = SamplerSettings(max_new_tokens=30, seed=3)

    def by_policy(token_ids: list[int]) -> list[float]:
        return learner.token_logprobs([*PROMPT, *token_ids])[len(PROMPT) - 1 :]

    move_adapters(learner, seed=6)
    engine.load(learner.adapter_weights(), version=1)
    engine.add([SequenceRequest(id="a", prompt_ids=PROMPT, settings=settings, ignore_end=True)])
    for _ in range(10):
        assert engine.step() == []
    move_adapters(learner, seed=7)
    engine.load(learner.adapter_weights(), version=2)
    finished: list[FinishedSequence] = []
    while engine.num_unfinished:
        finished += engine.step()
    (mixed,) = finished
    assert mixed.token_versions == [1] * 10 + [2] * 20
    move_adapters(learner, seed=6)
    by_old = by_policy(mixed.token_ids)
    assert mixed.logprobs[:10] == pytest.approx(by_old[:10], abs=1e-4)
    assert mixed.logprobs[10:] != pytest.approx(
        by_old[10:], abs=1e-2
    )  # the old adapters did not sample these
    engine.close()


@torch.no_grad()
def move_adapters(learner: Learner, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in learner.policy.model.named_parameters():
        if "lora_" in name:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
