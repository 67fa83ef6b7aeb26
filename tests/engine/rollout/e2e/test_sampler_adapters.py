"""Adapters alone to a real vLLM: log-probabilities as of merged weights, the canary, a whole run."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine import PromptRow, train
from verl_lite.engine.config import (
    AlgorithmConfig,
    DatasetConfig,
    LearnerConfig,
    LoraConfig,
    RolloutConfig,
    TrainConfig,
    VllmConfig,
)
from verl_lite.engine.data import read_prompts
from verl_lite.engine.learner import Learner
from verl_lite.engine.model import ChatTemplate, adapters_to_sync
from verl_lite.engine.observe import read_metrics
from verl_lite.errors import ConfigError, TrainingError
from verl_lite.plugins import Rollout, SamplerSettings, validate

LORA = LoraConfig(rank=4, alpha=16)
ROLLOUT = RolloutConfig(
    max_prompt_tokens=32, max_new_tokens=64, lora_sync="adapters", vllm=VllmConfig(kv_cache_gib=0.1)
)
SETTINGS = SamplerSettings(temperature=0.7, max_new_tokens=24, seed=5)


@pytest.fixture(scope="module")
def prompts(tokenizer: Any) -> list[PromptRow]:
    return read_prompts(
        DatasetConfig(task="arithmetic", num_rows=6), ChatTemplate(tokenizer), max_prompt_tokens=32, seed=0
    )


@pytest.fixture(scope="module")
def sampler(small_model: Path, tokenizer: Any, prompts: list[PromptRow]) -> Iterator[Any]:
    from verl_lite.engine.rollout import VllmSampler

    ids = prompts[0].prompt_ids
    started = VllmSampler(str(small_model), tokenizer, ROLLOUT, canary_ids=ids, seed=0, lora=LORA)
    yield started
    started.close()


@pytest.fixture
def learner(small_model: Path) -> Learner:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(small_model)
    return Learner(model, LearnerConfig(lora=LORA), AlgorithmConfig(), pad_token_id=0, total_steps=1)


@torch.no_grad()
def move(learner: Learner, seed: int) -> None:
    """Random adapters, large enough to be seen."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in learner.policy.model.named_parameters():
        if "lora_" in name:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def by_id(groups: Iterator[list[Rollout]]) -> dict[str, Rollout]:
    return {rollout.id: rollout for group in groups for rollout in group}


def test_adapters_alone_give_the_merged_model_s_log_probabilities(
    sampler: Any, learner: Learner, small_model: Path, prompts: list[PromptRow]
) -> None:
    from transformers import AutoModelForCausalLM

    assert sampler.engine.takes_adapters
    base = sampler.token_logprobs(sampler.canary.token_ids)
    for version in (1, 2):
        move(learner, seed=version)
        assert sampler.load_weights(learner, version=version) < 1e-5
        plain = AutoModelForCausalLM.from_pretrained(small_model)
        plain.load_state_dict(dict(learner.named_weights()), strict=False)
        rollouts = by_id(sampler.generate(prompts, num_samples=4, settings=SETTINGS))
        for rollout in rollouts.values():
            ids = torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])
            with torch.no_grad():
                logprobs_TV = (plain(ids).logits[0, :-1] / 0.7).log_softmax(-1)
            expected = logprobs_TV.gather(1, ids[0, 1:, None])[len(rollout.prompt_ids) - 1 :, 0].tolist()
            assert rollout.logprobs == pytest.approx(expected, abs=1e-4)
            assert rollout.policy_version == version
    moved = sampler.token_logprobs(sampler.canary.token_ids)
    assert max(abs(a - b) for a, b in zip(base, moved, strict=True)) > 0.1


def test_the_same_seeds_give_the_same_tokens_whatever_the_batch(
    sampler: Any, learner: Learner, prompts: list[PromptRow]
) -> None:
    move(learner, seed=3)
    sampler.load_weights(learner, version=1)
    together = by_id(sampler.generate(prompts, num_samples=3, settings=SETTINGS))
    sampler.load_weights(learner, version=2)  # the very same adapters again
    alone = by_id(sampler.generate(prompts[2:3], num_samples=1, settings=SETTINGS))
    (rollout,) = alone.values()
    assert rollout.completion_ids == together[rollout.id].completion_ids
    assert rollout.logprobs == pytest.approx(together[rollout.id].logprobs, abs=1e-5)


def test_a_skipped_sync_of_adapters_trips_the_canary(
    sampler: Any, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(learner, seed=4)
    sampler.load_weights(learner, version=1)
    move(learner, seed=5)
    monkeypatch.setattr(sampler.engine._adapters, "load", lambda llm, tensors: None)
    with pytest.raises(TrainingError, match="the weights of version 2 did not reach the sampler"):
        sampler.load_weights(learner, version=2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"learner": {"lora": {"target_modules": ["q_proj", "v_proj"]}}}, ""),
        ({"rollout": {"num_engines": 2}}, ""),
        ({"model": {"tiny": {}, "dtype": "bfloat16"}, "rollout": {"vllm": {"dtype": "bfloat16"}}}, ""),
        (
            {"model": {"tiny": {}, "dtype": "bfloat16"}, "rollout": {"vllm": {"dtype": "float32"}}},
            "model.dtype=bfloat16 with rollout.vllm.dtype=float32",
        ),
        ({"rollout": {"sampler": "transformers"}}, "rollout.sampler=transformers"),
        ({"learner": {}}, "learner.lora is unset"),
        ({"learner": {"lora": {"quantize": True}}}, "learner.lora.quantize=true"),
        ({"learner": {"lora": {"rank": 1024}}}, "learner.lora.rank=1024, more than 512"),
        (
            {"learner": {"lora": {"target_modules": ["q_proj", "embed_tokens"]}}},
            "learner.lora.target_modules=('q_proj', 'embed_tokens')",
        ),
        ({"learner": {"lora": {"target_modules": ".*q_proj"}}}, "learner.lora.target_modules='.*q_proj'"),
        ({"learner": {"lora": {}, "num_ranks": 2}}, "learner.num_ranks=2"),
    ],
)
def test_when_adapters_go_alone(
    changes: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree: dict[str, Any] = {
        "steps": 1,
        "model": {"tiny": {}},
        "data": {"train": {"task": "arithmetic"}},
        "rewards": {"math": {"use": "math"}},
        "learner": {"lora": {}},
    }
    lengths = {"max_prompt_tokens": 16, "max_new_tokens": 16}

    def config(lora_sync: str) -> TrainConfig:
        rollout = lengths | changes.get("rollout", {}) | {"lora_sync": lora_sync}
        return validate(TrainConfig, {**tree, **changes, "rollout": rollout}, source="test")

    if reason:
        with pytest.raises(ConfigError, match=re.escape(f"not possible with {reason}: set it to auto")):
            config("adapters")
    else:
        assert adapters_to_sync(config("adapters")) is not None
    for has_gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        alone = has_gpu and not reason
        assert adapters_to_sync(config("auto")) == (config("auto").learner.lora if alone else None)
        assert adapters_to_sync(config("merged")) is None


def test_a_model_that_vllm_has_no_adapters_for_gets_merged_weights(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verl_lite.engine.rollout import vllm_engine

    monkeypatch.setattr(vllm_engine, "_start", lambda *_, options, **__: options)

    def start(path: Path, lora_sync: str) -> Any:
        config = ROLLOUT.model_copy(update={"lora_sync": lora_sync})
        return vllm_engine.VllmEngine(str(path), config, seed=0, lora=LORA)

    engine = start(small_model, "adapters")
    assert engine.takes_adapters
    assert engine.llm == {"enable_lora": True, "max_loras": 1, "max_lora_rank": 8}
    for name, changes in {"experts": {"num_experts": 4}, "own": {"architectures": ["MyModel"]}}.items():
        (tmp_path / name).mkdir()
        described = json.loads((small_model / "config.json").read_text()) | changes
        (tmp_path / name / "config.json").write_text(json.dumps(described))
        engine = start(tmp_path / name, "auto")
        assert not engine.takes_adapters
        assert engine.llm == {}
    with pytest.raises(ConfigError, match=r"rollout\.lora_sync=adapters: vLLM has no adapters for the model"):
        start(tmp_path / "own", "adapters")


@pytest.mark.slow
def test_a_run_is_the_same_with_adapters_alone_and_with_merged_weights(
    small_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    merge = Learner.named_weights
    monkeypatch.setattr(Learner, "named_weights", lambda learner: sent.append(1) or merge(learner))

    def run(lora_sync: str) -> list[dict[str, float]]:
        rollout = small_run["rollout"] | {"sampler": "vllm", "lora_sync": lora_sync}
        rollout["vllm"] = {"kv_cache_gib": 0.1}
        learner = {"lora": {"rank": 4}, "optimizer": {"learning_rate": 1e-2}}
        tree = {**small_run, "rollout": rollout, "learner": learner, "checkpoints": {"every_steps": 0}}
        train(validate(TrainConfig, tree, source="test"), run_dir=tmp_path / lora_sync, show="quiet")
        return list(read_metrics(tmp_path / lora_sync / "metrics.jsonl"))

    merged = run("merged")
    assert len(sent) >= 5  # a sync a step, and the one before the first
    count = len(sent)
    alone = run("adapters")
    assert len(sent) == count  # every sync was of adapters
    assert len(alone) == len(merged) == 4
    for one, other in zip(alone, merged, strict=True):
        assert one["canary/max_difference"] < 1e-4
        assert one["reward/mean"] == pytest.approx(other["reward/mean"], abs=1e-6)
        assert one["learner/grad_norm"] == pytest.approx(other["learner/grad_norm"], rel=1e-2)
