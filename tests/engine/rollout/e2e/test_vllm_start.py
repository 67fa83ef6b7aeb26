"""What vLLM is started with, by a stand-in for its `LLM`, and what its start leaves behind."""

import importlib
import io
import logging
import os
import sys
from typing import Any, ClassVar

import pytest
import torch

from verl_lite.engine.config import RolloutConfig
from verl_lite.engine.rollout import vllm_engine
from verl_lite.engine.rollout.vllm_engine import NO_COMPILING, _start, _starting
from verl_lite.errors import ConfigError


class LLM:
    """Keeps what it was created with, and whether torch compiled functions then."""

    seen: ClassVar[dict[str, Any]] = {}

    def __init__(self, **options: Any) -> None:
        LLM.seen = {**options, "compiles": NO_COMPILING not in os.environ}

    def apply_model(self, function: Any) -> None: ...

    def generate(self, prompt: Any, parameters: Any, *, use_tqdm: bool) -> None:
        assert (parameters.max_tokens, use_tqdm) == (1, False)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NO_COMPILING, raising=False)
    with _starting(on_gpu=False):
        vllm = pytest.importorskip("vllm")
        for name in ("vllm.entrypoints.llm", "vllm.v1.sample.ops.logprobs"):
            importlib.import_module(name)
    monkeypatch.setattr(vllm, "LLM", LLM)
    monkeypatch.setattr(vllm_engine, "arguments_for_model", lambda path, *, on_gpu: {})


@pytest.mark.usefixtures("started")
def test_what_vllm_is_started_with_on_a_gpu() -> None:
    """CUDA graphs unless told otherwise, sleep mode where it shares the GPU, prefix caching."""
    config = RolloutConfig.model_validate({"vllm": {"quantization": "fp8", "gpu_memory_utilization": 0.4}})
    _start("folder", config, on_gpu=True, seed=2**31 + 5, options={"enable_lora": True})
    expected = {
        "enforce_eager": False, "enable_sleep_mode": True, "quantization": "fp8", "dtype": "auto",
        "gpu_memory_utilization": 0.4, "enable_prefix_caching": True, "enable_lora": True, "seed": 5,
        "logprobs_mode": "processed_logprobs", "model": "folder", "compiles": True,
    }  # fmt: skip
    assert {name: LLM.seen[name] for name in expected} == expected


@pytest.mark.usefixtures("started")
def test_a_model_that_fails_at_its_first_token_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """As jetmoe does: vLLM loads it, without a GPU to profile it on."""

    def generate(*_: Any, **options: Any) -> None:
        os.write(2, b"what vLLM itself says\n")
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (6x64 and 128x128)")

    monkeypatch.setattr(LLM, "generate", generate)
    with pytest.raises(
        ConfigError, match=r"cannot run the model 'folder' here: RuntimeError: mat1 .* Set roll"
    ):
        _start("folder", RolloutConfig(), on_gpu=False, seed=0, options={})
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("started")
def test_vllm_on_the_cpu_compiles_nothing_and_the_learner_may() -> None:
    _start("folder", RolloutConfig(), on_gpu=False, seed=0, options={})
    assert not LLM.seen["compiles"]
    assert NO_COMPILING not in os.environ
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    assert torch.compile(lambda x: x + 1, backend=backend)(torch.zeros(2)).tolist() == [1.0, 1.0]
    assert len(graphs) == 1
    from vllm.v1.sample.ops import logprobs

    assert not hasattr(logprobs.batched_count_greater_than, "_torchdynamo_orig_callable")
    torch._dynamo.reset()


@pytest.mark.usefixtures("started")
def test_a_user_s_own_setting_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_COMPILING, "0")
    _start("folder", RolloutConfig(), on_gpu=False, seed=0, options={})
    assert os.environ[NO_COMPILING] == "0"


def test_what_vllm_logs_while_it_starts_stays_out_of_a_live_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """A display of rich puts its own stream in the place of sys.stderr."""
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with _starting(on_gpu=False):
        logging.getLogger("vllm.of_a_test").warning("Triton is disabled")
        print("a line of a library", file=sys.stderr)
    print("afterwards", file=sys.stderr)
    assert shown.getvalue() == "afterwards\n"
