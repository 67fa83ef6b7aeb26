"""A tiny Qwen3 and ragged training samples; one thread, so that sums come in one order."""

import random
from collections.abc import Callable, Iterator

import pytest
import torch

from verl_lite.engine.stages import TrainingSample

VOCAB = 61


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build_tiny_model(dtype: torch.dtype = torch.float64, seed: int = 0, **options: object) -> torch.nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "vocab_size": VOCAB}
    return Qwen3ForCausalLM(Qwen3Config(**{**shape, "pad_token_id": 0, **options})).to(dtype)


@pytest.fixture
def tiny_model() -> Callable[..., torch.nn.Module]:
    return build_tiny_model


@pytest.fixture
def make_samples() -> Callable[..., list[TrainingSample]]:
    def make(
        *, num_groups: int = 4, group_size: int = 4, prompt=(5, 20), completion=(1, 24), seed: int = 0
    ) -> list[TrainingSample]:
        rng = random.Random(seed)
        samples = []
        for group in range(num_groups):
            prompt_ids = [rng.randrange(1, VOCAB) for _ in range(rng.randint(*prompt))]
            for _ in range(group_size):
                ids = [rng.randrange(1, VOCAB) for _ in range(rng.randint(*completion))]
                advantage = rng.uniform(-2, 2)
                samples.append(
                    TrainingSample(
                        prompt_ids=prompt_ids,
                        completion_ids=ids,
                        sampler_logprobs_T=[-4.0 + rng.uniform(-0.3, 0.3) for _ in ids],
                        advantages_T=[advantage] * len(ids),
                        loss_mask_T=[1] * len(ids),
                        group=f"g{group}",
                    )
                )
        return samples

    return make
