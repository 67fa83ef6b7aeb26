"""The generated model and tokenizer: an ordinary folder, the same for the same seed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from verl_lite.engine.config import TinyModelConfig
from verl_lite.engine.data import arithmetic_rows, worked_answer
from verl_lite.engine.model import build_tiny_model
from verl_lite.engine.rundir import derive_seed

TINIEST = TinyModelConfig(
    hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=16, max_context_tokens=64
)


def test_the_seed_fixes_the_weights_and_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_tiny_model(tmp_path / name, TINIEST, seed=seed)
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["model.embed_tokens.weight"], c["model.embed_tokens.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_the_folder_loads_like_any_other_model(small_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(small_model)
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    assert model.config.model_type == "qwen3"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.vocab_size == len(tokenizer) == 105


def test_text_survives_the_tokenizer_and_the_template_closes_turns(tokenizer: Any) -> None:
    text = "<think>7+8=15,4+3+1=8</think>\\boxed{85} \n~ {x}"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.decode(ids[:1]) == "<think>"
    chat = [{"role": "user", "content": "47+38="}, {"role": "assistant", "content": "85"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == (
        "<|user|>47+38=<|end|><|assistant|>85<|end|>"
    )


def test_arithmetic_splits_share_no_row_and_follow_the_seed() -> None:
    train = list(arithmetic_rows("train", num_rows=7100, seed=0))
    held_out = list(arithmetic_rows("held_out", num_rows=1000, seed=0))
    assert not {row["question"] for row in train} & {row["question"] for row in held_out}
    assert list(arithmetic_rows("train", num_rows=5, seed=3)) == list(
        arithmetic_rows("train", num_rows=5, seed=3)
    )
    assert list(arithmetic_rows("train", num_rows=5, seed=3)) != list(
        arithmetic_rows("train", num_rows=5, seed=4)
    )
    with pytest.raises(ValueError, match="has 1000 pairs of numbers, 1001 rows were requested"):
        next(arithmetic_rows("held_out", num_rows=1001, seed=0))


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        (47, 38, "<think>7+8=15,4+3+1=8</think>\\boxed{85}"),
        (99, 99, "<think>9+9=18,9+9+1=19</think>\\boxed{198}"),
        (10, 20, "<think>0+0=0,1+2+0=3</think>\\boxed{30}"),
    ],
)
def test_worked_answers_by_hand(a: int, b: int, answer: str) -> None:
    assert worked_answer(a, b) == answer


def test_a_derived_seed_is_pinned() -> None:
    # other machines and later versions must derive the same: resumed runs depend on it
    assert derive_seed(0, "rollout", 3) == 8824449284711463393
    assert derive_seed(0, 12) != derive_seed(1, 2) != derive_seed("01", 2)
