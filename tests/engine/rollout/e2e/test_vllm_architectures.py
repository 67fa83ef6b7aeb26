"""Families on real vLLM: changed weights arrive whole, and the learner's class stays as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine import train
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.testing import family_model, write_family
from verl_lite.errors import TrainingError
from verl_lite.plugins import validate

IDS = torch.arange(6, 46)[None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "implementation"),
    [
        pytest.param("qwen3", "Qwen3ForCausalLM", marks=pytest.mark.long),
        ("gpt2", "GPT2LMHeadModel"),  # a tied head, and embeddings of another name
        ("mixtral", "MixtralForCausalLM"),  # fused experts under other names
        pytest.param(
            "glm4-moe", "Glm4MoeForCausalLM", marks=pytest.mark.long
        ),  # a router's bias, which is no parameter
        ("gpt-oss", "GptOssForCausalLM"),  # copied past the weight loaders
        ("ernie4_5-moe", "Ernie4_5_MoeForCausalLM"),  # a router's bias that the CPU build ignores
        pytest.param("solar-open", "TransformersMoEForCausalLM", marks=pytest.mark.long),
    ],
)
def test_vllm_agrees_with_the_learner_before_and_after_syncs(
    family: str, implementation: str, trials: Any
) -> None:
    row = trials.sampler_row(family)
    assert not row.error
    assert row.implementation == implementation
    assert row.start is not None
    assert row.synced is not None
    assert max(row.start, row.synced) < 1e-3


@pytest.mark.slow
def test_a_class_that_vllm_takes_from_transformers_is_the_learners_own_afterwards(trials: Any) -> None:
    model = family_model("olmo2")
    with torch.no_grad():
        before = model(input_ids=IDS).logits
        row = trials.sampler_row("olmo2")
        assert row.implementation == "TransformersForCausalLM"
        assert row.synced is not None
        assert row.synced < 1e-3
        assert torch.equal(model(input_ids=IDS).logits, before)
        assert torch.equal(family_model("olmo2")(input_ids=IDS).logits, before)  # new ones can be made


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", pytest.param("phi3", marks=pytest.mark.long)])
def test_adapters_alone_are_synced(family: str, trials: Any) -> None:
    row = trials.sampler_row(family, adapters=True)
    assert not row.error
    assert row.adapters is not None
    assert row.adapters < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "reason"),
    [
        pytest.param("gpt-neo", "GPTNeoForCausalLM", marks=pytest.mark.long),
        ("jetmoe", "cannot be multiplied"),  # loaded, and failing when it computes
        pytest.param("deepseek-v4", "mlp_layer_types", marks=pytest.mark.long),
    ],
)
def test_a_model_that_vllm_cannot_run_is_one_line(family: str, reason: str, trials: Any) -> None:
    error = trials.sampler_row(family).error
    assert error.startswith("vLLM ")
    assert reason in error
    assert "Set rollout.sampler: transformers" in error
    assert "\n" not in error


@pytest.mark.slow
def test_the_canary_stops_a_run_whose_sampler_computes_another_model(
    small_run: dict[str, Any], tmp_path: Path
) -> None:
    """vLLM 0.32 computes HRM otherwise (docs/architectures.md), before any update."""
    write_family("hrm-text", tmp_path / "model")
    small_run["model"] = {"path": str(tmp_path / "model")}
    small_run["rollout"] |= {"sampler": "vllm", "max_prompt_tokens": 64, "vllm": {"kv_cache_gib": 0.1}}
    config = validate(TrainConfig, small_run, source="test")
    with pytest.raises(TrainingError, match=r"version 0 did not reach the sampler.*another model"):
        train(config, run_dir=tmp_path / "run", show="quiet")
