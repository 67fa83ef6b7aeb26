"""Which weights vLLM gets under LoRA: only the adapters, on its own base, or all weights, merged.

Importing it never imports torch.
"""

from typing import Literal

from verl_lite.engine.config.learner import LearnerConfig

LoraSync = Literal["auto", "adapters", "merged"]
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the ranks vLLM supports
MAX_RANK = RANKS[-1]
# Layers with the same name on both sides: what "all-linear" finds in the Qwen and Llama families.
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def reason_to_merge(
    learner: LearnerConfig, *, sampler: str, weight_transfer: str, model_dtype: str, vllm_dtype: str
) -> str:
    """The setting that rules out sending only adapters; "" if none does.

    vLLM reads its base from disk, so the learner's base must be the same: not in 4 bits, and not rounded to
    fewer bits than vLLM computes in.
    """
    lora = learner.lora
    if lora is None:
        return "learner.lora is unset"
    if sampler != "vllm":
        return f"rollout.sampler={sampler}"
    if lora.quantize:
        return "learner.lora.quantize=true"
    if learner.num_ranks > 1:
        return f"learner.num_ranks={learner.num_ranks}"
    if weight_transfer != "object_store":
        return f"rollout.weight_transfer={weight_transfer}"
    if vllm_dtype != "auto" and model_dtype not in ("float32", vllm_dtype):
        return f"model.dtype={model_dtype} with rollout.vllm.dtype={vllm_dtype}"
    named = lora.target_modules
    if named != "all-linear" and (isinstance(named, str) or not LINEAR.issuperset(named)):
        return f"learner.lora.target_modules={named!r}"
    return f"learner.lora.rank={lora.rank}, more than {MAX_RANK}" if lora.rank > MAX_RANK else ""
