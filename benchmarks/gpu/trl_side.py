"""TRL's GRPOTrainer with colocated vLLM on a model folder; imported only where TRL is installed."""

import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch


def run_trl(path: Path, *, rehearse: bool) -> dict[str, Any]:
    """Four steps of 64 completions of 512 tokens (a rehearsal: two of 4 by `generate` on the CPU)."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    prompts, samples, new = (2, 2, 8) if rehearse else (8, 8, 512)
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    def length(completions: list[Any], **columns: Any) -> list[float]:
        texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
        return [-abs(len(text) - new / 2) for text in texts]

    rows = [{"prompt": [{"role": "user", "content": f"What is {at} + {at + 7}?"}]} for at in range(64)]
    engine: dict[str, Any] = {"use_cpu": True}
    if not rehearse:
        engine = {
            "use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.35,
            "vllm_enable_sleep_mode": True, "bf16": True,
        }  # fmt: skip
    config = GRPOConfig(
        output_dir="trl_out", max_steps=2 if rehearse else 4, per_device_train_batch_size=prompts * samples,
        gradient_accumulation_steps=1, num_generations=samples, max_completion_length=new, learning_rate=1e-6,
        beta=0.0, temperature=1.0, gradient_checkpointing=True, report_to=[], save_strategy="no",
        logging_steps=1, **engine,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(path),
        reward_funcs=length,
        args=config,
        train_dataset=Dataset.from_list(rows),
        callbacks=[Clock()],
    )
    trainer.train()
    steps = [after - before for before, after in pairwise(ends)]
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return {"step_s": statistics.median(steps), "steps": len(ends), "peak_gib": peak}
