"""Out-of-memory errors with advice. Kills by the kernel's out-of-memory killer are noticed by lock.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from verl_lite.errors import TrainingError, VerlLiteError

ADVICE = {
    "starting the sampler": (
        "lower rollout.vllm.kv_cache_gib (on the CPU), or set rollout.vllm.gpu_memory_utilization to the "
        "free fraction"
    ),
    "generating": (
        "lower rollout.vllm.kv_cache_gib (on the CPU) or rollout.vllm.gpu_memory_utilization; if that is not "
        "enough, rollout.num_prompts or rollout.num_samples in a new run"
    ),
    "loading the policy": (
        "free the device of other processes; if that is not enough, set model.dtype: bfloat16 or "
        "learner.lora in a new run"
    ),
    "updating": (
        "lower learner.max_tokens_per_micro_batch, or set learner.gradient_checkpointing: true and "
        "learner.offload_activations: true; if that is not enough, learner.optimizer.offload in a new run"
    ),
    "loading the new weights": (
        "lower rollout.vllm.gpu_memory_utilization, or on the CPU rollout.vllm.kv_cache_gib"
    ),
}
# torch's CPU allocator, among others, raises a plain RuntimeError
WORDS = ("can't allocate memory", "cannot allocate memory", "out of memory", "not enough memory")

Where = Literal[
    "loading the policy", "starting the sampler", "generating", "updating", "loading the new weights"
]


@contextmanager
def clear_memory_errors(where: Where, *, step: int | None = None, resumes: bool = True) -> Iterator[None]:
    """Turn MemoryError and its torch equivalents into a TrainingError that says what to change.

    `resumes`: the command has checkpoints to continue from.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, VerlLiteError) or not is_out_of_memory(error):
            raise
        at = "" if step is None else f"step {step}: "
        reason = str(error).split("\n")[0] or type(error).__name__
        again = "use --resume, which starts from the newest checkpoint" if resumes else "start it again"
        raise TrainingError(
            f"{at}out of memory while {where} ({reason:.160}{_held()}). To continue, {ADVICE[where]}, "
            f"and {again}"
        ) from error


def _held() -> str:
    """What the GPU held, for the message; "" without a GPU."""
    if not torch.cuda.is_available():
        return ""
    gib, (free, total) = 2**30, torch.cuda.mem_get_info()
    return (
        f"; this process held {torch.cuda.memory_allocated() / gib:.1f} GiB of tensors, at most "
        f"{torch.cuda.max_memory_allocated() / gib:.1f}, and {free / gib:.1f} of the GPU's {total / gib:.1f} "
        "were free"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that there was too little memory, of any kind."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(word in str(error).lower() for word in WORDS)
