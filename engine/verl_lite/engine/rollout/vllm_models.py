"""What vLLM is told of models that its own classes compute otherwise than transformers, as the learner does.

docs/architectures.md has what was measured, with vLLM 0.32.0.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from verl_lite.engine.model.configuration import read_configuration

TRANSFORMERS_CLASS = {"model_impl": "transformers"}
# its class never adds the embeddings that each layer has
OTHERWISE = ("gemma3n_text",)
# the CPU's latent attention gives other numbers
OTHERWISE_ON_CPU = ("deepseek_v2", "deepseek_v3", "glm4_moe_lite")
# by the module with its class, in the versions that let a query see one token more than the window
ONE_TOKEN_MORE = {"cohere2": "commandr", "cohere2_moe": "cohere2_moe"}
ONE_MORE = "config.sliding_window + 1"


def arguments_for_model(model_path: str, *, on_gpu: bool) -> dict[str, Any]:
    """Arguments of `LLM` with which vLLM computes the model in `model_path` as transformers does."""
    config: Any = read_configuration(model_path)
    kind = config.model_type
    if kind in OTHERWISE or (kind in OTHERWISE_ON_CPU and not on_gpu):
        return TRANSFORMERS_CLASS
    module = ONE_TOKEN_MORE.get(kind)
    if module is not None and config.sliding_window and ONE_MORE in _source(module):
        return {"hf_overrides": {"sliding_window": config.sliding_window - 1}}
    return {}


def _source(module: str) -> str:
    """vLLM's source of one model; "" where this vLLM has none."""
    spec = find_spec("vllm")
    file = Path(spec.origin or "").parent / "model_executor" / "models" / f"{module}.py" if spec else Path()
    return file.read_text(encoding="utf-8") if file.is_file() else ""
