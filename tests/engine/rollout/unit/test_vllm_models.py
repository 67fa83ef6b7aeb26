"""What vLLM is told of models that its own classes compute otherwise than transformers."""

import json
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.rollout import vllm_models
from verl_lite.engine.rollout.vllm_models import TRANSFORMERS_CLASS, arguments_for_model
from verl_lite.engine.testing import family_config


def told(folder: Path, family: str, *, on_gpu: bool = False, **changes: Any) -> dict[str, Any]:
    config = family_config(family).to_dict() | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return arguments_for_model(str(folder), on_gpu=on_gpu)


def test_a_class_that_computes_another_model_is_not_used(tmp_path: Path) -> None:
    assert told(tmp_path, "gemma3n-text") == told(tmp_path, "gemma3n-text", on_gpu=True) == TRANSFORMERS_CLASS
    assert told(tmp_path, "deepseek-v3") == TRANSFORMERS_CLASS
    assert told(tmp_path, "deepseek-v3", on_gpu=True) == {}  # its kernels for the GPU are others
    assert told(tmp_path, "qwen3") == {}


@pytest.mark.parametrize("family", ["cohere2", "cohere2-moe"])
def test_the_window_is_transformers_in_a_vllm_that_adds_a_token_to_it(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_models, "_source", lambda module: "window = config.sliding_window + 1\n")
    assert told(tmp_path, family, sliding_window=4096) == {"hf_overrides": {"sliding_window": 4095}}
    assert told(tmp_path, family, sliding_window=None) == {}
    monkeypatch.setattr(vllm_models, "_source", lambda module: "window = config.sliding_window\n")
    assert told(tmp_path, family, sliding_window=4096) == {}


def test_the_source_of_this_vllm_is_found() -> None:
    if vllm_models.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    for module in vllm_models.ONE_TOKEN_MORE.values():
        assert "sliding_window" in vllm_models._source(module)
    assert vllm_models._source("no_such_model") == ""
