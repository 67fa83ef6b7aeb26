"""The transformers sampler: exact, seeded by completion, synced, and behind the canary."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from verl_lite.engine import PromptRow
from verl_lite.engine.config import DatasetConfig, LoraConfig, RolloutConfig
from verl_lite.engine.data import read_prompts
from verl_lite.engine.model import ChatTemplate, add_adapters, base_model
from verl_lite.engine.rollout import TransformersSampler
from verl_lite.errors import TrainingError
from verl_lite.plugins import SamplerSettings


@pytest.fixture
def prompts(tokenizer: Any) -> list[PromptRow]:
    return read_prompts(
        DatasetConfig(task="arithmetic", num_rows=6), ChatTemplate(tokenizer), max_prompt_tokens=32, seed=0
    )


@pytest.fixture
def sampler(small_model: Path, tokenizer: Any, prompts: list[PromptRow]) -> TransformersSampler:
    model = AutoModelForCausalLM.from_pretrained(small_model)
    return TransformersSampler(model, tokenizer, RolloutConfig(), canary_ids=prompts[0].prompt_ids)


def by_id(groups: Iterator[list[Any]]) -> dict[str, Any]:
    return {rollout.id: rollout for group in groups for rollout in group}


def test_logprobs_are_the_model_s_at_the_sampling_temperature(
    sampler: TransformersSampler, source: Any, prompts: list[PromptRow]
) -> None:
    settings = SamplerSettings(temperature=0.7, max_new_tokens=12, seed=5)
    for rollout in by_id(sampler.generate(prompts, num_samples=2, settings=settings)).values():
        ids = [*rollout.prompt_ids, *rollout.completion_ids]
        expected = source.token_logprobs(ids, temperature=0.7)[len(rollout.prompt_ids) - 1 :]
        assert rollout.logprobs == pytest.approx(expected, abs=1e-4)
        assert rollout.finish_reason == ("stop" if ids[-1] == 1 else "length")


PENALTIES = {
    "repetition_penalty": 1.5,
    "no_repeat_ngram_size": 2,
    "suppress_tokens": list(range(10, 40)),
    "temperature": 0.3,
    "min_new_tokens": 9,
}


@pytest.mark.parametrize("lora", [False, True])
def test_the_model_s_own_generation_config_changes_nothing(
    sampler: TransformersSampler, small_model: Path, tokenizer: Any, prompts: list[PromptRow], lora: bool
) -> None:
    settings = SamplerSettings(max_new_tokens=12, seed=5)
    plain = by_id(sampler.generate(prompts, num_samples=4, settings=settings))
    model = AutoModelForCausalLM.from_pretrained(small_model)
    model.generation_config.update(**PENALTIES)
    if lora:  # as SFT samples from the model that it trains
        model = add_adapters(model, LoraConfig(rank=2))
    planted = TransformersSampler(model, tokenizer, RolloutConfig(), canary_ids=prompts[0].prompt_ids)
    found = by_id(planted.generate(prompts, num_samples=4, settings=settings))
    for id, rollout in plain.items():
        assert found[id].completion_ids == rollout.completion_ids
        assert found[id].logprobs == pytest.approx(rollout.logprobs, abs=1e-5)
    kept = base_model(model).generation_config  # it goes into the folders that are saved
    assert {name: getattr(kept, name) for name in PENALTIES} == PENALTIES


def test_a_completion_depends_on_its_seed_not_on_its_batch(
    sampler: TransformersSampler, prompts: list[PromptRow]
) -> None:
    settings = SamplerSettings(max_new_tokens=10, seed=5)
    together = by_id(sampler.generate(prompts, num_samples=3, settings=settings))
    alone = by_id(sampler.generate(prompts[2:3], num_samples=1, settings=settings))
    (rollout,) = alone.values()
    assert rollout.completion_ids == together[rollout.id].completion_ids
    assert len({tuple(r.completion_ids) for r in together.values()}) == len(together) == 18
    other = by_id(
        sampler.generate(prompts, num_samples=3, settings=SamplerSettings(max_new_tokens=10, seed=6))
    )
    assert all(other[id].completion_ids != r.completion_ids for id, r in together.items())


def test_sampling_follows_the_distribution_and_top_p_and_top_k_cut_it(
    sampler: TransformersSampler, source: Any, prompts: list[PromptRow]
) -> None:
    logits = source.model(torch.tensor([list(prompts[0].prompt_ids)])).logits[0, -1].detach() * 4
    probabilities = logits.softmax(-1)
    num = 4000

    def draw(**options: Any) -> Counter[int]:
        settings = SamplerSettings(temperature=0.25, max_new_tokens=1, seed=1, **options)
        (group,) = sampler.generate(prompts[:1], num_samples=num, settings=settings)
        return Counter(rollout.completion_ids[0] for rollout in group)

    counts = draw()
    likely = [token for token in range(len(probabilities)) if probabilities[token] * num >= 20]
    chi2 = sum(
        (counts[token] - num * float(probabilities[token])) ** 2 / (num * float(probabilities[token]))
        for token in likely
    )
    freedom = len(likely)
    assert freedom > 10
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom)
    top = probabilities.topk(5)
    assert set(draw(top_k=5)) == set(top.indices.tolist())
    half = float(top.values[:3].sum()) - 1e-4  # the smallest set that reaches this is the first three
    assert set(draw(top_p=half)) == set(top.indices[:3].tolist())


def test_greedy_is_generate_s_greedy(
    sampler: TransformersSampler, source: Any, prompts: list[PromptRow]
) -> None:
    settings = SamplerSettings(temperature=0.0, max_new_tokens=8)
    (group,) = sampler.generate(prompts[:1], num_samples=1, settings=settings)
    ids = torch.tensor([list(prompts[0].prompt_ids)])
    expected = source.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8
    )[0, ids.shape[1] :]
    assert group[0].completion_ids == expected.tolist()
    assert group[0].group == prompts[0].id
    assert group[0].reference == prompts[0].reference


def test_new_weights_arrive_and_a_skipped_sync_trips_the_canary(
    sampler: TransformersSampler, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sampler.load_weights(source, version=0) < 1e-5
    source.move(seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(sampler, "_replace_weights", lambda source: None)
        with pytest.raises(TrainingError, match="the weights of version 1 did not reach the sampler"):
            sampler.load_weights(source, version=1)
    assert sampler.load_weights(source, version=1) < 1e-5
    assert sampler.version == 1
