"""Environment variables that change a run without a word of its config: said once, at its start."""

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.errors import ConfigError

ON = ("1", "true", "yes", "on")
COMPILERS = {"TORCHDYNAMO_DISABLE": "1", "TORCH_COMPILE_DISABLE": "1"}  # the values that torch knows
# on a GPU: what the variable does where it is on
GPU_SWITCHES = {
    "NVIDIA_TF32_OVERRIDE": "float32 products are computed in TF32, with 10 bits instead of 23",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "float32 products are computed in TF32, with 10 bits instead of 23",
    "CUDA_LAUNCH_BLOCKING": "every kernel is waited for, which takes several times as long",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "memory is taken from the driver each time, which takes much longer",
}
# what of vLLM's changes no numbers, or is a secret
_HARMLESS = re.compile(r"LOG|KEY|TOKEN|USAGE|HOST|PORT|ROOT|DIR|TIMEOUT|DEV_MODE|TRACK|MULTIPROC")


def check_switches(learner: LearnerConfig, environment: Mapping[str, str] = os.environ) -> list[str]:
    """A note per variable that changes a run. Raises ConfigError for one that the config contradicts."""
    on_gpu = torch.cuda.is_available()
    notes = []
    for name in (name for name, off in COMPILERS.items() if environment.get(name) == off):
        if learner.compile:
            raise ConfigError(
                f"learner.compile=true, but {name}=1 in the environment keeps torch from compiling: "
                "unset it, or leave the setting out"
            )
        if learner.compiles(on_gpu=on_gpu):
            notes.append(f"{name}=1 in the environment: layers are not compiled")
    for name, effect in GPU_SWITCHES.items():
        if on_gpu and (value := environment.get(name, "")).lower() in ON:
            notes.append(f"{name}={value} in the environment: {effect}")
    return notes


def vllm_switches(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A note per variable that vLLM follows, or does not know: what it says itself is not shown."""
    found = {
        name: value
        for name, value in environment.items()
        if name.startswith("VLLM_") and not _HARMLESS.search(name)
    }
    spec = importlib.util.find_spec("vllm") if found else None
    if spec is None or spec.origin is None:
        return []
    known = Path(spec.origin).with_name("envs.py").read_text(encoding="utf-8")
    return [
        f"{name}={value} in the environment: "
        + ("vLLM follows it" if f'"{name}"' in known else "this vLLM does not know it, so it does nothing")
        for name, value in sorted(found.items())
    ]
