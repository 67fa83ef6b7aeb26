"""The two sides of the learner benchmarks: verl-lite's learner and TRL's GRPOTrainer, same model, same batch.

TRL's side is its own code from padded inputs on: `training_step` (autocast, `_compute_loss`, backward),
then clipping and the same AdamW. Only generation and scoring are left out, on both sides.
Both sides train the model they are given: pass a copy to keep it.
"""

import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from verl_lite.engine import TrainingSample
from verl_lite.engine.config import AlgorithmConfig, LearnerConfig, OptimizerConfig
from verl_lite.engine.learner import Learner

LEARNING_RATE = 1e-6


def make_model(*, vocab_size: int, hidden_size: int, num_layers: int) -> Any:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocab_size, hidden_size=hidden_size, intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers, num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 128, head_dim=64, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def make_batch(
    *, num_prompts: int, group_size: int, vocab_size: int, prompt: tuple[int, int], total: tuple[int, int]
) -> list[TrainingSample]:
    """Groups that share a prompt of `prompt` tokens; prompt and completion together `total`, uniform."""
    rng = random.Random(0)
    samples = []
    for group in range(num_prompts):
        prompt_ids = [rng.randrange(1, vocab_size) for _ in range(rng.randint(*prompt))]
        for _ in range(group_size):
            length = max(rng.randint(*total) - len(prompt_ids), 32)
            samples.append(
                TrainingSample(
                    prompt_ids=prompt_ids,
                    completion_ids=[rng.randrange(1, vocab_size) for _ in range(length)],
                    sampler_logprobs_T=(),
                    advantages_T=[rng.uniform(-1, 1)] * length,
                    loss_mask_T=[1] * length,
                    group=str(group),
                )
            )
    return samples


def num_tokens(samples: Sequence[TrainingSample]) -> int:
    """Prompt and completion tokens of every sample: what a step has to cover, padding not counted."""
    return sum(len(s.prompt_ids) + len(s.completion_ids) for s in samples)


def our_step(model: Any, samples: Sequence[TrainingSample], **options: Any) -> Callable[[], None]:
    config = LearnerConfig(
        optimizer=OptimizerConfig(learning_rate=LEARNING_RATE, schedule="constant"), **options
    )
    learner = Learner(model, config, AlgorithmConfig(), pad_token_id=0, total_steps=10)
    return lambda: void(learner.update(samples))


def our_gradients(model: Any, samples: Sequence[TrainingSample], **options: Any) -> dict[str, torch.Tensor]:
    learner = Learner(model, LearnerConfig(**options), AlgorithmConfig(), pad_token_id=0, total_steps=10)
    learner._optimizer.step = lambda norm=None: (0.0, True)  # type: ignore[method-assign]
    learner.update(samples)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def trl_step(
    model: Any,
    samples: Sequence[TrainingSample],
    *,
    bf16: bool,
    gradient_checkpointing: bool,
    step: bool = True,
) -> Callable[[], Any]:
    """One TRL update as a call; with `step=False` it stops after backward and returns the model."""
    trainer = _trl_trainer(model, len(samples), bf16, gradient_checkpointing)
    inputs = _padded_inputs(samples)
    trainer._prepare_inputs = lambda _: inputs
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)

    def run() -> Any:
        trainer.training_step(trainer.model, inputs, None)
        if not step:
            return trainer.model
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        return None

    return run


def _padded_inputs(samples: Sequence[TrainingSample]) -> dict[str, torch.Tensor]:
    """As TRL makes them: prompts padded on the left, completions on the right, to the batch's longest."""
    prompt = max(len(s.prompt_ids) for s in samples)
    width = max(len(s.completion_ids) for s in samples)
    left = [[0] * (prompt - len(s.prompt_ids)) for s in samples]
    right = [[0] * (width - len(s.completion_ids)) for s in samples]
    rows = list(zip(samples, left, right, strict=True))
    mask = torch.tensor([[1] * len(s.completion_ids) + pad for s, _, pad in rows])
    return {
        "prompt_ids": torch.tensor([pad + list(s.prompt_ids) for s, pad, _ in rows]),
        "prompt_mask": torch.tensor([pad + [1] * len(s.prompt_ids) for s, pad, _ in rows]),
        "completion_ids": torch.tensor([list(s.completion_ids) + pad for s, _, pad in rows]),
        "completion_mask": mask,
        "advantages": torch.tensor([s.advantages_T[0] for s in samples]),
        "num_items_in_batch": mask.sum(),
    }


def _trl_trainer(model: Any, batch_size: int, bf16: bool, gradient_checkpointing: bool) -> Any:
    import trl
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="b"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="a", unk_token="b", eos_token="c")
    config = trl.GRPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=bf16, report_to=[], beta=0.0,
        per_device_train_batch_size=batch_size, num_generations=batch_size, gradient_accumulation_steps=1,
        gradient_checkpointing=gradient_checkpointing, max_completion_length=1024,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "b"}] * batch_size),
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def peak_rss_mb() -> float:
    """The most memory this process has had, in MiB (VmHWM)."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def reset_peak_rss() -> None:
    """Start VmHWM anew at the present size (Linux)."""
    fd = os.open("/proc/self/clear_refs", os.O_WRONLY)
    os.write(fd, b"5")
    os.close(fd)


def void(_: object) -> None:
    return None
