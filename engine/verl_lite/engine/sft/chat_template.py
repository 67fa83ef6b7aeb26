"""The model's chat template: a conversation as text, as tokens, and the spans of its responses.

A response is found by two renderings: the chat before a turn with the generation prompt, and the chat
including the turn. The model would generate what the second adds. Text after the end-of-turn token (a line
break in ChatML) is never generated and not trained on.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_lite.engine.model.end_tokens import named_token_ids
from verl_lite.engine.types import Tokenizer
from verl_lite.errors import DataError
from verl_lite.plugins import Message

GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One row to train on: a chat with at least one assistant turn. `id` names it in error messages."""

    id: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def assistant_turns(self) -> list[int]:
        """Indices of assistant turns, except a first message."""
        return [at for at, message in enumerate(self.messages) if at and message["role"] == "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One assistant turn in the rendered text `after`: characters [start, end), including the end of turn.

    `prompt` is rendered for inference. `agrees`: `after` starts with it; `is_ended`: an end-of-turn token
    closes the turn; `is_empty`: the turn has nothing else.
    """

    turn: int
    prompt: str
    after: str
    end: int
    agrees: bool
    is_ended: bool
    is_empty: bool

    @property
    def start(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of a text, and each token's characters [start, end)."""

    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]

    def inside(self, start: int, end: int) -> list[int]:
        """The tokens with at least one character in [start, end)."""
        return [at for at, (a, b) in enumerate(self.offsets) if a < end and b > start]


class ChatTemplate:
    """Renders with one tokenizer. `ends` are tokens (as text) that end a turn besides eos."""

    def __init__(self, tokenizer: Tokenizer, ends: Sequence[str] = ()) -> None:
        if not tokenizer.is_fast:
            raise DataError(
                "SFT needs a fast tokenizer (one that knows the characters of each token), got "
                f"{type(tokenizer).__name__}"
            )
        named_token_ids(tokenizer, ends)
        self.tokenizer = tokenizer
        self.ends = tuple(dict.fromkeys([str(tokenizer.eos_token), *ends]))

    def marks_responses(self, conversation: Conversation) -> bool:
        """Whether the template has {% generation %} marks."""
        tools = list(conversation.tools) if conversation.tools else None
        return bool(GENERATION_TAG.search(self.tokenizer.get_chat_template(tools=tools)))

    def render(self, conversation: Conversation, num_messages: int, *, for_inference: bool = False) -> str:
        """The first `num_messages` as text. Raises DataError when the template refuses them."""
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(conversation.messages[:num_messages]),
                    tools=list(conversation.tools) if conversation.tools else None,
                    add_generation_prompt=for_inference,
                    tokenize=False,
                )
            )
        except (TemplateError, TypeError, KeyError) as error:
            raise DataError(
                f"row {conversation.id}: the chat template refuses its first {num_messages} messages: {error}"
            ) from None

    def response(self, conversation: Conversation, turn: int) -> Response:
        """Where assistant turn `turn` begins and ends."""
        prompt = self.render(conversation, turn, for_inference=True)
        after = self.render(conversation, turn + 1)
        body = after[len(prompt) :]
        at, end = max((body.rfind(end), end) for end in self.ends)
        is_ended = at >= 0 and not body[at + len(end) :].strip()
        length = at + len(end) if is_ended else len(body.rstrip())
        return Response(
            turn=turn,
            prompt=prompt,
            after=after,
            end=len(prompt) + length,
            agrees=after.startswith(prompt),
            is_ended=is_ended,
            is_empty=not (body[:at] if is_ended else body).strip(),
        )

    def tokens(self, text: str) -> Tokens:
        """The text's tokens, without special tokens added."""
        coded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return Tokens(coded["input_ids"], coded["offset_mapping"])

    def marked(self, conversation: Conversation, num_tokens: int) -> list[bool] | None:
        """Whether each token is inside {% generation %}; None when the template tokenises differently."""
        coded = self.tokenizer.apply_chat_template(
            list(conversation.messages),
            tools=list(conversation.tools) if conversation.tools else None,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        mask = [bool(bit) for bit in coded["assistant_masks"]]
        return mask if len(mask) == num_tokens else None
