"""Real vLLM in this process, one engine for the whole file."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine import PromptRow
from verl_lite.engine.config import DatasetConfig, RolloutConfig, VllmConfig
from verl_lite.engine.data import read_prompts
from verl_lite.engine.model import ChatTemplate
from verl_lite.engine.rollout import FinishedSequence, SequenceRequest
from verl_lite.errors import TrainingError
from verl_lite.plugins import Rollout, SamplerSettings

ROWS = DatasetConfig(task="arithmetic", num_rows=8)
SETTINGS = SamplerSettings(max_new_tokens=16, seed=5)
TOKENS_PER_STEP = 8192  # the engine's, on the CPU


@pytest.fixture(scope="module")
def prompts(tokenizer: Any) -> list[PromptRow]:
    return read_prompts(ROWS, ChatTemplate(tokenizer), max_prompt_tokens=32, seed=0)


@pytest.fixture(scope="module")
def sampler(small_model: Path, tokenizer: Any, prompts: list[PromptRow]) -> Iterator[Any]:
    from verl_lite.engine.rollout import VllmSampler

    config = RolloutConfig(max_prompt_tokens=32, max_new_tokens=32, vllm=VllmConfig(kv_cache_gib=0.25))
    started = VllmSampler(str(small_model), tokenizer, config, canary_ids=prompts[0].prompt_ids, seed=0)
    yield started
    started.close()


@pytest.fixture(autouse=True)
def _first_weights(sampler: Any, source: Any) -> None:
    """Every test begins with the weights of the folder."""
    sampler.load_weights(source, version=0)


def by_id(groups: Iterator[list[Rollout]]) -> dict[str, Rollout]:
    return {rollout.id: rollout for group in groups for rollout in group}


def completions(sampler: Any, prompts: Sequence[PromptRow], num_samples: int = 2) -> dict[str, list[int]]:
    found = by_id(sampler.generate(prompts, num_samples=num_samples, settings=SETTINGS))
    return {id: list(rollout.completion_ids) for id, rollout in found.items()}


def test_logprobs_are_the_learner_s_at_the_sampling_temperature(
    sampler: Any, source: Any, prompts: list[PromptRow]
) -> None:
    settings = SamplerSettings(temperature=0.7, max_new_tokens=12, seed=5)
    rollouts = by_id(sampler.generate(prompts, num_samples=2, settings=settings))
    assert len(rollouts) == 16
    for rollout in rollouts.values():
        ids = [*rollout.prompt_ids, *rollout.completion_ids]
        expected = source.token_logprobs(ids, temperature=0.7)[len(rollout.prompt_ids) - 1 :]
        assert rollout.logprobs == pytest.approx(expected, abs=1e-4)


def test_groups_are_whole_ordered_and_self_contained(sampler: Any, prompts: list[PromptRow]) -> None:
    groups = list(sampler.generate(prompts, num_samples=3, settings=SETTINGS))
    assert sorted(group[0].group for group in groups) == sorted(prompt.id for prompt in prompts)
    for group in groups:
        assert [rollout.sample_index for rollout in group] == [0, 1, 2]
        assert len({rollout.sampling.seed for rollout in group}) == 3
        (prompt,) = [prompt for prompt in prompts if prompt.id == group[0].group]
        assert group[0].prompt == prompt.messages
        assert group[0].reference == prompt.reference
        assert group[0].columns["question"] == prompt.columns["question"]


def test_the_same_seeds_give_the_same_tokens_whatever_the_batch(
    sampler: Any, source: Any, prompts: list[PromptRow]
) -> None:
    first = completions(sampler, prompts)
    sampler.load_weights(source, version=3)  # the very same weights again
    assert completions(sampler, prompts) == first
    alone = completions(sampler, prompts[4:5], num_samples=1)
    assert alone == {id: first[id] for id in alone}
    assert sampler.version == 3


@pytest.mark.parametrize("part", ["embed_tokens", "self_attn", "mlp", "norm"])
def test_every_part_of_the_weights_arrives(sampler: Any, source: Any, part: str) -> None:
    before = sampler.token_logprobs(sampler.canary.token_ids)
    source.move(seed=1, scale=0.05, only=part)
    assert sampler.load_weights(source, version=1) < 1e-5
    after = sampler.token_logprobs(sampler.canary.token_ids)
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) > 1e-3


def test_a_skipped_sync_trips_the_canary(sampler: Any, source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source.move(seed=2, scale=0.01)
    monkeypatch.setattr(sampler.engine, "load", lambda weights, version: None)
    with pytest.raises(TrainingError, match="the weights of version 1 did not reach the sampler"):
        sampler.load_weights(source, version=1)


def test_answers_end_at_every_end_token(
    sampler: Any, prompts: list[PromptRow], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (end,) = tokenizer.encode("7", add_special_tokens=False)
    monkeypatch.setattr(sampler, "end_ids", (tokenizer.eos_token_id, end))
    settings = SamplerSettings(max_new_tokens=32, seed=5)
    found = list(by_id(sampler.generate(prompts, num_samples=8, settings=settings)).values())
    ended = [rollout for rollout in found if rollout.completion_ids[-1] == end]
    assert len(ended) > 5
    assert all(rollout.finish_reason == "stop" for rollout in ended)
    assert all(end not in rollout.completion_ids[:-1] and "7" not in rollout.completion for rollout in found)
    assert all(len(rollout.logprobs) == len(rollout.completion_ids) for rollout in found)
    past = SequenceRequest(
        id="past", prompt_ids=prompts[0].prompt_ids, settings=settings, end_ids=(end,), ignore_end=True
    )
    many = [replace(past, id=str(at), settings=replace(settings, seed=at)) for at in range(48)]
    sampler.engine.add(many)
    finished: list[FinishedSequence] = []
    while sampler.engine.num_unfinished:
        finished += sampler.engine.step()
    assert {len(one.token_ids) for one in finished} == {32}
    assert any(end in one.token_ids for one in finished)


def test_norms_and_activations_are_single_kernels(sampler: Any) -> None:
    from vllm import ir

    def layers(worker: Any) -> set[str]:
        return {type(layer).__name__ for layer in worker.model_runner.model.modules()}

    (names,) = sampler.engine.llm.collective_rpc(layers)
    assert "KernelSiluAndMul" in names
    assert "SiluAndMul" not in names
    for norm in (ir.ops.rms_norm, ir.ops.fused_add_rms_norm):
        assert norm.get_priority() == ["verl_lite_cpu", "native"]


def test_stopping_early_leaves_the_engine_empty(sampler: Any, prompts: list[PromptRow]) -> None:
    whole = completions(sampler, prompts)
    groups = sampler.generate(prompts, num_samples=2, settings=SETTINGS)
    next(groups)
    groups.close()
    assert not sampler.engine.llm.llm_engine.has_unfinished_requests()
    assert completions(sampler, prompts) == whole


def test_greedy_ignores_the_seed(sampler: Any, prompts: list[PromptRow]) -> None:
    def greedy(seed: int) -> list[list[int]]:
        settings = SamplerSettings(temperature=0.0, max_new_tokens=8, seed=seed)
        found = by_id(sampler.generate(prompts, num_samples=1, settings=settings))
        return [list(found[f"{prompt.id}/0"].completion_ids) for prompt in prompts]

    assert greedy(1) == greedy(2)


def test_more_prompt_tokens_than_one_engine_step_takes(sampler: Any, prompts: list[PromptRow]) -> None:
    """vLLM cuts a prompt that no longer fits into a step; with a seed of its own that fails on the CPU."""
    long = [replace(prompt, prompt_ids=(list(prompt.prompt_ids) * 60)[:60]) for prompt in prompts]
    count = 1 + TOKENS_PER_STEP // (60 * len(long))
    settings = SamplerSettings(max_new_tokens=2, seed=5)
    many = by_id(sampler.generate(long, num_samples=count, settings=settings))
    few = by_id(sampler.generate(long, num_samples=1, settings=settings))
    assert len(many) == count * len(long)
    assert {id: many[id].completion_ids for id in few} == {id: few[id].completion_ids for id in few}
