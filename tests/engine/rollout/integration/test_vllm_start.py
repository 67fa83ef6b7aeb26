"""What vLLM is started with on a GPU; importing it starts a process."""

from typing import Any

import pytest

from verl_lite.engine.config import RolloutConfig
from verl_lite.engine.rollout.vllm_engine import _start


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, while vLLM is imported
def test_what_vllm_is_started_with_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA graphs unless told otherwise, sleep mode where it shares the GPU, prefix caching."""
    vllm = pytest.importorskip("vllm")
    seen: dict[str, Any] = {}

    class LLM:
        def __init__(self, **options: Any) -> None:
            seen.update(options)

        def apply_model(self, function: Any) -> None: ...

    monkeypatch.setattr(vllm, "LLM", LLM)
    config = RolloutConfig.model_validate({"vllm": {"quantization": "fp8", "gpu_memory_utilization": 0.4}})
    _start("folder", config, on_gpu=True, seed=2**31 + 5, options={"enable_lora": True})
    expected = {
        "enforce_eager": False, "enable_sleep_mode": True, "quantization": "fp8", "dtype": "auto",
        "gpu_memory_utilization": 0.4, "enable_prefix_caching": True, "enable_lora": True, "seed": 5,
        "logprobs_mode": "processed_logprobs", "model": "folder",
    }  # fmt: skip
    assert {name: seen[name] for name in expected} == expected
