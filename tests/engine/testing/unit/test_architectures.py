"""Families on the learner's side: a saved model is the trained one, also with LoRA merged."""

from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine.config import LoraConfig
from verl_lite.engine.model import add_adapters, in_checkpoint_format, load_policy, named_weights, save_policy
from verl_lite.engine.model.lora import adapter_weights
from verl_lite.engine.testing import family_model, write_family
from verl_lite.errors import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", ["llama", "gpt2", "deepseek-v3", "mixtral", "qwen3_5"])
def test_a_family_is_saved_and_loaded_whole(family: str, trials: Any) -> None:
    row = trials.learner_row(family)
    assert row.reload == 0
    assert row.lora_reload is not None
    assert row.lora_reload < 1e-3


@pytest.mark.parametrize("family", ["mixtral", "deepseek-v3", "gemma3", "qwen3_5-moe", "gpt2", "gpt-oss"])
def test_synced_weights_have_the_names_and_values_of_the_files(family: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write_family(family, tmp_path / "hub")
    model = load_policy(str(tmp_path / "hub"), dtype="float32", device=CPU)
    synced = dict(in_checkpoint_format(model, named_weights(model)))
    save_policy(model, None, tmp_path / "saved")
    for folder in ("hub", "saved"):
        files = load_file(tmp_path / folder / "model.safetensors")
        assert all(torch.equal(files[name], tensor) for name, tensor in synced.items())
        towers = {name for name in files if "visual" in name}  # left out where only text is trained
        assert files.keys() - synced.keys() == (towers if folder == "hub" else set())


def test_experts_are_synced_one_by_one() -> None:
    model = family_model("mixtral")
    names = dict(in_checkpoint_format(model, named_weights(model)))
    fused = model.get_parameter("model.layers.1.mlp.experts.down_proj")
    assert torch.equal(names["model.layers.1.block_sparse_moe.experts.5.w2.weight"], fused[5])
    assert not any("gate_up_proj" in name for name in names)


@pytest.mark.parametrize(
    ("family", "module", "why"),
    [
        ("zamba2", "q_proj", "has the same weight"),
        ("jamba", "dt_proj", "JambaMambaMixer reads its weight past the adapter"),
        ("longcat-flash", "classifier", "LongcatFlashTopkRouter reads its weight past the adapter"),
        ("llama", "lm_head", "log-probabilities are computed from its weight, past the adapter"),
        ("phimoe", "router", "PhimoeTopKRouter returns more than a product"),
    ],
)
def test_adapters_that_would_be_lost_are_refused_by_name_and_left_out_of_all(family, module, why) -> None:
    with pytest.raises(ConfigError, match=rf"adapts (model\.layers.*)?{module}, which cannot .*{why}"):
        add_adapters(family_model(family), LoraConfig(target_modules=(module,)))
    adapted = add_adapters(family_model(family), LoraConfig())
    wrapped = [name for name, part in adapted.named_modules() if hasattr(part, "get_delta_weight")]
    assert wrapped
    assert not any(name.endswith(module) and (family, module) != ("zamba2", "q_proj") for name in wrapped)


def test_adapters_have_the_names_of_the_files(tmp_path: Path) -> None:
    write_family("qwen3_5", tmp_path)
    model = load_policy(str(tmp_path), dtype="float32", device=CPU)
    adapted = add_adapters(model, LoraConfig(rank=2, target_modules=("q_proj",)))
    names = {name for name, _ in adapter_weights(adapted)}
    layer = "base_model.model.model.language_model.layers.3.self_attn.q_proj"
    assert names == {f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"}


def test_what_peft_refuses_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"learner\.lora with target_modules=\('no_such',\): .*not found"):
        add_adapters(family_model("llama"), LoraConfig(target_modules=("no_such",)))
