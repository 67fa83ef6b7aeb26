"""The tokens that end an answer: one list for every sampler, for SFT and for preference pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verl_lite.engine.config.model import is_gguf
from verl_lite.engine.model.chat_template import ChatTemplate
from verl_lite.engine.model.configuration import first_line
from verl_lite.engine.model.weights import base_model
from verl_lite.engine.types import PreTrainedModel, Tokenizer
from verl_lite.errors import DataError
from verl_lite.plugins import Message

ANSWER = "verlanswer"


def end_token_ids(
    tokenizer: Tokenizer, model: "PreTrainedModel | str | None", named: Sequence[str] = ()
) -> tuple[int, ...]:
    """The ends of the tokenizer and of the model's generation_config, those `named`, the template's own.

    `model` is a loaded model, its folder or hub id, or None. A model whose chat template ends turns with
    a token other than eos (Gemma's <end_of_turn>) says so in its generation_config; a base model may not.
    """
    written = written_end(tokenizer)
    known = _known_ends(tokenizer, model, named)
    return tuple(dict.fromkeys([*known, *([] if written is None else [written])]))


def end_of_answer(tokenizer: Tokenizer, end_ids: Sequence[int], named: Sequence[str] = ()) -> int:
    """The token that ends an answer: what the chat template writes behind it, if that is one of `end_ids`.

    If it writes none: the first of `named`; else what opens the next turn, if it is one of `end_ids` (GLM-4.5
    ends an answer with <|user|>); else eos.
    """
    written = written_end(tokenizer)
    if written in end_ids:
        return int(written or 0)
    if named:
        return named_token_ids(tokenizer, named)[0]
    opening = _first_token_behind(tokenizer, [{"role": "user", "content": "question"}])
    return opening if opening is not None and opening in end_ids else int(tokenizer.eos_token_id)


def written_end(tokenizer: Tokenizer) -> int | None:
    """The special token that the chat template writes behind an answer; None if it writes text or nothing."""
    return _first_token_behind(tokenizer, [])


def note_on_end(
    tokenizer: Tokenizer, model: "PreTrainedModel | str | None", named: Sequence[str] = ()
) -> str:
    """What to tell the user of a model that was never told how its own template ends a turn; "" if it was."""
    written = written_end(tokenizer)
    if written is None or written in _known_ends(tokenizer, model, named):
        return ""
    token = tokenizer.convert_ids_to_tokens(written)
    return (
        f"the chat template ends a turn with {token!r}, but neither tokenizer nor generation_config.json "
        f"names that token: answers end at it as well as at {tokenizer.eos_token!r}. A base model that never "
        f"saw {token!r} writes on until rollout.max_new_tokens: warm it up (sft.steps), or train the "
        f"instruction-tuned model; sft.end_of_turn: ['{token}'] says that this is meant"
    )


def named_token_ids(tokenizer: Tokenizer, named: Sequence[str]) -> list[int]:
    """The ids of the tokens of sft.end_of_turn. Raises DataError for text that is not one token."""
    coded = {text: tokenizer.encode(text, add_special_tokens=False) for text in named}
    for text, ids in coded.items():
        if len(ids) != 1:
            raise DataError(f"sft.end_of_turn: {text!r} is not one token of this tokenizer")
    return [ids[0] for ids in coded.values()]


def without_end(token_ids: list[int], end_ids: Sequence[int]) -> list[int]:
    """The answer without its end token, which the tokenizer may not treat as special."""
    return token_ids[:-1] if token_ids and token_ids[-1] in end_ids else token_ids


def _known_ends(
    tokenizer: Tokenizer, model: "PreTrainedModel | str | None", named: Sequence[str]
) -> list[int]:
    generation: Any = None
    if isinstance(model, str):
        generation = _generation_config(model)
    elif model is not None:
        generation = base_model(model).generation_config
    found = getattr(generation, "eos_token_id", None)
    own = [found] if isinstance(found, int) else list(found or ())
    ids = [tokenizer.eos_token_id, *own, *named_token_ids(tokenizer, named)]
    return [id for id in ids if 0 <= id < len(tokenizer)]


def _first_token_behind(tokenizer: Tokenizer, following: Sequence[Message]) -> int | None:
    """The special token right behind the answer of a chat that `following` continues, if there is one."""
    chat: list[Message] = [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": ANSWER},
        *following,
    ]
    template = ChatTemplate(tokenizer)
    try:
        text = template.render(chat, where="")
    except DataError:  # the template refuses this chat
        return None
    after = template.encode(text.rpartition(ANSWER)[2].lstrip())
    is_special = after and (
        after[0] in tokenizer.added_tokens_decoder or after[0] in tokenizer.all_special_ids
    )
    return after[0] if is_special else None


def _generation_config(path: str) -> Any:
    if is_gguf(path):
        return None  # its only end token is the tokenizer's
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(path)
    except OSError as error:  # not every model has one
        if (Path(path) / "generation_config.json").is_file():
            raise DataError(f"cannot read generation_config.json of {path!r}: {first_line(error)}") from None
        return None
