"""The model shapes of the GPU benchmarks, with random weights, and how their operations are counted."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from verl_lite.engine import TrainingSample


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A dense Qwen3 with a tied output head."""

    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int = 128
    vocab: int = 151_936

    def config(self) -> Any:
        from transformers import Qwen3Config

        return Qwen3Config(
            vocab_size=self.vocab, hidden_size=self.hidden, intermediate_size=self.mlp,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim, max_position_embeddings=131_072, tie_word_embeddings=True,
        )  # fmt: skip

    @property
    def body_parameters(self) -> int:
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.mlp)

    def training_flops(self, *, lengths: list[int], predicted: int, lora: bool) -> float:
        """Of one update: 2 per weight and token forward, 2 for the inputs' gradient, 2 for the weights'.

        The weights' gradient is not computed under LoRA. The head is computed on `predicted` tokens;
        attention costs 4 x heads x head_dim per pair of tokens forward, twice that backward, on half of them.
        """
        per_weight = 4 if lora else 6
        tokens = sum(lengths)
        head = self.vocab * self.hidden
        pairs = sum(length * length / 2 for length in lengths)
        attention = 3 * 4 * self.layers * self.heads * self.head_dim * pairs
        return per_weight * (tokens * self.body_parameters + predicted * head) + attention

    def prime_rl_flops(self, *, lengths: list[int]) -> float:
        """As prime-rl counts: 6 per parameter, head included; attention in full, as wide as hidden."""
        parameters = self.body_parameters + self.vocab * self.hidden
        attention = sum(12 * self.layers * self.hidden * length * length for length in lengths)
        return 6 * parameters * sum(lengths) + attention


TINY = Shape(hidden=64, mlp=128, layers=2, heads=4, kv_heads=2, head_dim=16, vocab=600)
SMALL = Shape(hidden=1024, mlp=3072, layers=28, heads=16, kv_heads=8)  # Qwen3-0.6B
LARGE = Shape(hidden=2560, mlp=9728, layers=36, heads=32, kv_heads=8)  # Qwen3-4B


def random_model(shape: Shape, *, dtype: torch.dtype, device: torch.device) -> Any:
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return Qwen3ForCausalLM(shape.config())
    finally:
        torch.set_default_dtype(before)


def write_model(shape: Shape, folder: Path, *, device: torch.device) -> Path:
    """A model folder with random bfloat16 weights and a character tokenizer."""
    from verl_lite.engine.model import tiny

    random_model(shape, dtype=torch.bfloat16, device=device).save_pretrained(folder)
    tiny.build_tiny_tokenizer().save_pretrained(folder)
    return folder


def random_samples(shape: Shape, *, count: int, prompt: int, length: int) -> list[TrainingSample]:
    """`count` completions of a prompt each, `length` tokens in all, with advantages of either sign."""
    rng = random.Random(0)
    size = length - prompt

    def tokens(number: int) -> list[int]:
        return [rng.randrange(shape.vocab) for _ in range(number)]

    return [
        TrainingSample(
            prompt_ids=tokens(prompt),
            completion_ids=tokens(size),
            sampler_logprobs_T=[-12.0] * size,
            advantages_T=[1.0 if at % 2 else -1.0] * size,
            loss_mask_T=[1] * size,
            group=str(at),
        )
        for at in range(count)
    ]
