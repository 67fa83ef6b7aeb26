"""What the environment changes is said at the start of a run, or refused where the config says otherwise."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine.config import LearnerConfig
from verl_lite.engine.rundir.switches import check_switches, vllm_switches
from verl_lite.errors import ConfigError

COMPILERS = ["TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE"]


@pytest.mark.parametrize("name", COMPILERS)
def test_layers_that_torch_would_not_compile_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"learner.compile=true, but {name}=1 in the environment"):
        check_switches(LearnerConfig(compile=True), {name: "1"})
    assert check_switches(LearnerConfig(), {name: "1"}) == []  # nothing is compiled on the CPU anyway
    assert check_switches(LearnerConfig(compile=True), {name: "0"}) == []


@pytest.mark.parametrize("name", COMPILERS)
def test_torch_compiles_unless_one_of_them_is_1(name: str) -> None:
    """The values are torch's own: read from its source, as they change a process only at its start."""
    files = ("_dynamo/config.py", "_dynamo/eval_frame.py")
    source = "".join((Path(torch.__file__).parent / file).read_text(encoding="utf-8") for file in files)
    assert (
        f'os.environ.get("{name}", "0") == "1"' in source or f'os.environ.get("{name}", "") == "1"' in source
    )


@pytest.mark.parametrize(
    ("environment", "note"),
    [
        ({"TORCHDYNAMO_DISABLE": "1"}, "TORCHDYNAMO_DISABLE=1 in the environment: layers are not compiled"),
        ({"NVIDIA_TF32_OVERRIDE": "1"}, "NVIDIA_TF32_OVERRIDE=1 in the environment: float32 products are"),
        (
            {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "ON"},
            "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=ON in the environment",
        ),
        ({"CUDA_LAUNCH_BLOCKING": "1"}, "CUDA_LAUNCH_BLOCKING=1 in the environment: every kernel is waited"),
        ({"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, "PYTORCH_NO_CUDA_MEMORY_CACHING=1 in the environment"),
    ],
)
def test_switches_of_a_gpu_are_noted_there_alone(
    environment: dict[str, str], note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_switches(LearnerConfig(), environment) == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (found,) = check_switches(LearnerConfig(), environment)
    assert found.startswith(note)
    assert check_switches(LearnerConfig(), dict.fromkeys(environment, "0")) == []


def test_variables_of_vllm_are_named_and_secrets_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm/__init__.py").touch()
    (tmp_path / "vllm/envs.py").write_text('variables = {"VLLM_USE_V2_MODEL_RUNNER": 1}\n', encoding="utf-8")
    found: dict[str, Any] = {
        "VLLM_USE_V2_MODEL_RUNNER": "0", "VLLM_ATTENTION_BACKEND": "XFORMERS", "VLLM_API_KEY": "secret",
        "VLLM_LOGGING_LEVEL": "ERROR", "HOME": "/",
    }  # fmt: skip
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert vllm_switches(found) == [
        "VLLM_ATTENTION_BACKEND=XFORMERS in the environment: this vLLM does not know it, so it does nothing",
        "VLLM_USE_V2_MODEL_RUNNER=0 in the environment: vLLM follows it",
    ]
