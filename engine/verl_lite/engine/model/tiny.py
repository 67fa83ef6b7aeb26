"""A tiny Qwen3 with a character tokenizer and a chat template, built in a second without downloads.

For examples and tests, as an ordinary Hugging Face folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from verl_lite.engine.config.model import TinyModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3Config

ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>")
END_TOKEN = "<|end|>"
PAD_TOKEN = "<|pad|>"
UNKNOWN_TOKEN = "<|unk|>"
# single tokens, but not special: decoding keeps them, so rewards see them
TEXT_TOKENS = ("<think>", "</think>", "\\boxed{")

# calls are Pythonic, as [func_name1(name="value")]: every character is a token
CHAT_TEMPLATE = (
    "{% if tools %}<|system|>"
    "{% for tool in tools %}{{ tool['function']['name'] }}{{ ' ' if not loop.last }}{% endfor %}"
    "<|end|>{% endif %}"
    "{% for message in messages %}"
    "<|{{ 'user' if message['role'] == 'tool' else message['role'] }}|>{{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}[{{ call['function']['name'] }}("
    "{% for key, value in call['function']['arguments'].items() %}"
    "{{ key }}={{ value | tojson }}{{ ', ' if not loop.last }}{% endfor %})]{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}{# [func_name1( #}"
)


def build_tiny_tokenizer() -> "PreTrainedTokenizerFast":
    """One token per printable ASCII character, plus roles, end, pad, unknown and three text tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = [PAD_TOKEN, END_TOKEN, UNKNOWN_TOKEN, *ROLE_TOKENS]
    characters = ["\n", *(chr(code) for code in range(32, 127))]
    vocabulary = {token: index for index, token in enumerate([*specials, *TEXT_TOKENS, *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN_TOKEN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD_TOKEN,
        eos_token=END_TOKEN,
        unk_token=UNKNOWN_TOKEN,
        additional_special_tokens=list(ROLE_TOKENS),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in TEXT_TOKENS])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_tiny_model(folder: Path, config: TinyModelConfig, *, seed: int) -> None:
    """Write a randomly initialised Qwen3 and its tokenizer into `folder` (safetensors, float32)."""
    from transformers import GenerationConfig, Qwen3ForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()

    tokenizer = build_tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Qwen3ForCausalLM = Qwen3ForCausalLM(tiny_model_config(config, tokenizer))
    model.generation_config = GenerationConfig(**_ends(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_model_config(config: TinyModelConfig, tokenizer: "PreTrainedTokenizerFast") -> "Qwen3Config":
    """The transformers configuration for this size and tokenizer."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.hidden_size // config.num_heads,
        max_position_embeddings=config.max_context_tokens,
        tie_word_embeddings=True,
        bos_token_id=None,
        dtype="float32",
        **_ends(tokenizer),
    )


def _ends(tokenizer: "PreTrainedTokenizerFast") -> dict[str, int]:
    return {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
