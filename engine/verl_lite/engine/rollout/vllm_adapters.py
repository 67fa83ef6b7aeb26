"""LoRA adapters in a vLLM engine: a sync writes a small folder that vLLM loads; the base weights stay.

The adapter is replaced in place, so running sequences continue with the new one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from verl_lite.engine.config.learner import LoraConfig
from verl_lite.engine.config.lora_sync import RANKS

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
NAME = "policy"


def takes_adapters(model_path: str) -> bool:
    """Whether the model in `model_path` is dense and vLLM's class for it supports LoRA."""
    from transformers import AutoConfig
    from vllm.model_executor.models import ModelRegistry, supports_lora

    config = AutoConfig.from_pretrained(model_path)
    if any(getattr(config, name, None) for name in EXPERTS):
        return False
    names = config.architectures or []
    known = [ModelRegistry.models[name] for name in names if name in ModelRegistry.models]
    return bool(known) and supports_lora(known[0].load_model_cls())


class VllmAdapters:
    """Adapters of one shape. Pass `request` with every sequence; it is None before the first `load`."""

    def __init__(self, config: LoraConfig) -> None:
        self._config = config
        self._directory: TemporaryDirectory[str] | None = None
        self.request: Any = None

    @property
    def options(self) -> dict[str, Any]:
        """Arguments for vLLM's `LLM`."""
        rank = next(rank for rank in RANKS if rank >= self._config.rank)
        return {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}

    def load(self, llm: Any, tensors: Mapping[str, Tensor]) -> None:
        """Replace the adapters by these, named as in `lora.adapter_weights` (PEFT)."""
        from safetensors.torch import save_file
        from vllm.lora.request import LoRARequest

        if self._directory is None:
            self._directory = TemporaryDirectory(prefix="verl-lite-adapters-")
        folder = Path(self._directory.name)
        modules = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in tensors})
        described = {
            "peft_type": "LORA",
            "r": self._config.rank,
            "lora_alpha": self._config.alpha,
            "target_modules": modules,
        }
        (folder / "adapter_config.json").write_text(json.dumps(described))
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(kept, folder / "adapter_model.safetensors")
        llm.llm_engine.add_lora(LoRARequest(NAME, 1, str(folder), load_inplace=True))
        self.request = LoRARequest(NAME, 1, str(folder))  # load_inplace would reload with every request

    def close(self) -> None:
        if self._directory is not None:
            self._directory.cleanup()
