"""The tokens that end an answer: one list for every sampler and for preference pairs."""

from collections.abc import Sequence
from typing import Any

from verl_lite.engine.config.train import is_gguf
from verl_lite.engine.model.weights import base_model
from verl_lite.engine.types import PreTrainedModel, Tokenizer
from verl_lite.errors import DataError

ANSWER = "answer"


def end_token_ids(
    tokenizer: Tokenizer, model: "PreTrainedModel | str", named: Sequence[str] = ()
) -> tuple[int, ...]:
    """The tokenizer's eos, the model's generation_config's, and the tokens `named` by the config.

    `model` is a loaded model, or its folder or hub id. A model whose chat template ends turns with a token
    other than eos (Gemma's <end_of_turn>) names it in its generation_config, or nowhere.
    """
    generation = _generation_config(model) if isinstance(model, str) else base_model(model).generation_config
    found = getattr(generation, "eos_token_id", None)
    own = [found] if isinstance(found, int) else list(found or ())
    ids = [tokenizer.eos_token_id, *own, *named_token_ids(tokenizer, named)]
    return tuple(dict.fromkeys(id for id in ids if 0 <= id < len(tokenizer)))


def named_token_ids(tokenizer: Tokenizer, named: Sequence[str]) -> list[int]:
    """The ids of the tokens of sft.end_of_turn. Raises DataError for text that is not one token."""
    coded = {text: tokenizer.encode(text, add_special_tokens=False) for text in named}
    for text, ids in coded.items():
        if len(ids) != 1:
            raise DataError(f"sft.end_of_turn: {text!r} is not one token of this tokenizer")
    return [ids[0] for ids in coded.values()]


def end_of_answer(tokenizer: Tokenizer, end_ids: Sequence[int]) -> int:
    """The one of `end_ids` that the chat template puts after an answer; eos if it puts none."""
    from jinja2 import TemplateError

    chat = [{"role": "user", "content": "question"}, {"role": "assistant", "content": ANSWER}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except TemplateError:  # the template refuses this chat
        return int(tokenizer.eos_token_id)
    after = tokenizer.encode(text.rpartition(ANSWER)[2], add_special_tokens=False)
    return next((id for id in after if id in end_ids), int(tokenizer.eos_token_id))


def without_end(token_ids: list[int], end_ids: Sequence[int]) -> list[int]:
    """The answer without its end token, which the tokenizer may not treat as special."""
    return token_ids[:-1] if token_ids and token_ids[-1] in end_ids else token_ids


def _generation_config(path: str) -> Any:
    if is_gguf(path):
        return None  # its only end token is the tokenizer's
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(path)
    except OSError:  # not every model has one
        return None
