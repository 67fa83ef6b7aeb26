"""bitsandbytes: AdamW's moments in 8 bits, and a frozen base in 4 bits (QLoRA).

Both run on GPUs and, with a recent bitsandbytes, on CPUs. The 4-bit format is NF4 with double quantisation
(QLoRA, arXiv:2305.14314); the output head and the embeddings are not quantised.
"""

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.errors import ConfigError


def check_bitsandbytes(config: LearnerConfig) -> None:
    """Raise ConfigError if `config` needs bitsandbytes and it is not installed."""
    wanted = {"learner.optimizer.bits=8": config.optimizer.bits == 8}
    wanted["learner.lora.quantize=true"] = config.is_quantized
    keys = [key for key, is_wanted in wanted.items() if is_wanted]
    if keys and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{' and '.join(keys)} needs the bitsandbytes package, which is not installed: "
            'pip install "verl-lite[bits]", or leave the setting out'
        )


def adamw_8bit(groups: list[dict[str, Any]], options: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW with block-wise 8-bit moments; small tensors keep 32 bits."""
    from bitsandbytes.optim import AdamW8bit  # type: ignore[import-not-found,attr-defined,unused-ignore]

    return AdamW8bit(groups, **options)  # type: ignore[no-any-return,no-untyped-call,unused-ignore]


def four_bit_config(dtype: torch.dtype) -> Any:
    """The `from_pretrained` option that loads linear layers in 4 bits and multiplies in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call,unused-ignore]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_training_kernels(model: nn.Module) -> None:
    """Make evaluation use training's kernels: on CPUs bitsandbytes would repack and compute in bfloat16."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def dequantized(parameter: Tensor) -> Tensor:
    """The weight that the forward pass uses: in float32 if quantised, else as it is."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return parameter.detach()
    from bitsandbytes.functional import dequantize_4bit  # type: ignore[import-not-found,unused-ignore]

    return dequantize_4bit(parameter.data, state).float()  # type: ignore[no-any-return,unused-ignore]
