"""Where the responses of a conversation are in its text and tokens.

A response is what the model would generate after the chat before the turn, rendered with the generation
prompt. Usually that is what the chat including the turn adds, up to the end-of-turn token. Where the template
drops a part of the answer (DeepSeek-R1's drops all reasoning), shows the turns before it differently
(Mistral's moves the system message) or writes no end of turn (GLM-4.5's), the response is the row's own text
and the end token behind the prompt of inference. Text after the end of turn
(a line break in ChatML, Phi-3's second end token) is never generated and not trained on.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from verl_lite.engine.model.chat_template import (
    END_OF_REASONING,
    ChatTemplate,
    behind_prompt,
    closing_tag,
    end_of_words,
    opened_block,
)
from verl_lite.engine.model.end_tokens import end_of_answer
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
    """One assistant turn in the text `after`: characters [start, end), including the end of turn.

    `prompt` is rendered for inference. `agrees`: `after` starts with it; `is_ended`: an end-of-turn token
    closes the turn; `is_empty`: the turn has nothing else; `lost`: the part of the turn that the text lacks.
    """

    turn: int
    prompt: str
    after: str
    end: int
    agrees: bool = True
    is_ended: bool = True
    is_empty: bool = False
    lost: str = ""

    @property
    def start(self) -> int:
        return len(self.prompt)

    @property
    def closed(self) -> str:
        """The text up to the end of the turn."""
        return self.after[: self.end]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of a text, and each token's characters [start, end)."""

    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]

    def inside(self, start: int, end: int) -> list[int]:
        """The tokens with at least one character in [start, end)."""
        return [at for at, (a, b) in enumerate(self.offsets) if a < end and b > start]


class ResponseFinder:
    """Finds responses with one template.

    `end_ids` are tokens that end a turn besides eos; `named` are those that the config names. `markers` are
    these and all other special tokens, which say nothing. With `closes_reasoning` an answer without reasoning
    closes the block that the generation prompt opened.
    """

    def __init__(
        self,
        template: ChatTemplate,
        *,
        end_ids: Sequence[int] = (),
        named: Sequence[str] = (),
        closes_reasoning: bool = False,
    ) -> None:
        tokenizer = template.tokenizer
        if not tokenizer.is_fast:
            raise DataError(
                "SFT needs a fast tokenizer (one that knows the characters of each token), got "
                f"{type(tokenizer).__name__}"
            )
        self.template = template
        ids = dict.fromkeys([int(tokenizer.eos_token_id), *end_ids])
        self.ends = tuple(str(token) for token in tokenizer.convert_ids_to_tokens(list(ids)))
        end = end_of_answer(tokenizer, list(ids), named)
        # without a word from the model or the config, eos would only be a guess
        is_known = bool(named) or end != tokenizer.eos_token_id
        added = tokenizer.added_tokens_decoder
        self.markers = frozenset([*ids, *(id for id, token in added.items() if token.special)])
        names = sorted((token.content for id, token in added.items() if id in self.markers), key=len)
        self._markers = re.compile("|".join(map(re.escape, reversed(names))) or r"\Z")
        self._end = str(tokenizer.convert_ids_to_tokens(end))
        self._adds_end = is_known
        self._closes_reasoning = closes_reasoning

    @property
    def tokenizer(self) -> Tokenizer:
        return self.template.tokenizer

    def marks_responses(self, conversation: Conversation) -> bool:
        """Whether the template has {% generation %} marks."""
        tools = list(conversation.tools) if conversation.tools else None
        return bool(GENERATION_TAG.search(self.tokenizer.get_chat_template(tools=tools)))

    def render(self, conversation: Conversation, num_messages: int, *, for_inference: bool = False) -> str:
        """The first `num_messages` as text. Raises DataError when the template refuses them.

        For inference nothing may be missing; what only the text for training lacks is found by `response`.
        """
        where = f"row {conversation.id}"
        return self.template.of_row(conversation.columns, where=where).render(
            conversation.messages[:num_messages],
            where=where,
            tools=conversation.tools,
            for_inference=for_inference,
            may_lose=not for_inference,
        )

    def response(self, conversation: Conversation, turn: int) -> Response:
        """Where assistant turn `turn` begins and ends."""
        message = conversation.messages[turn]
        prompt = self.render(conversation, turn, for_inference=True)
        after = self.render(conversation, turn + 1)
        agrees = after.startswith(prompt)
        body = after[len(prompt) :] if agrees else ""
        behind, lost = _end_of_message(message, body)
        if agrees and not lost:
            found = self._by_template(turn, prompt, after, behind)
        else:
            found = self._by_content(turn, prompt, after, message, lost=lost, agrees=agrees)
        if found.is_ended or found.lost or not found.agrees or not self._adds_end:
            return found
        text = found.closed + self._end
        return replace(found, after=text, end=len(text), is_ended=True)

    def _by_template(self, turn: int, prompt: str, after: str, behind: int) -> Response:
        """The response as the template writes it: to the first end token `behind` the message."""
        body = after[len(prompt) :]
        ends = [(at, end) for end in self.ends if (at := body.find(end, behind)) >= 0]
        at, end = min(ends, default=(len(body.rstrip()), ""))
        return Response(
            turn=turn,
            prompt=prompt,
            after=after,
            end=len(prompt) + at + len(end),
            is_ended=bool(ends),
            is_empty=not self._markers.sub("", body[:at]).strip(),
        )

    def _by_content(
        self, turn: int, prompt: str, after: str, message: Message, *, lost: str, agrees: bool
    ) -> Response:
        """The response as the row's own text; what only a template can write makes it `lost`."""
        refused = Response(turn=turn, prompt=prompt, after=after, end=len(after), agrees=agrees, lost=lost)
        content = str(message.get("content") or "")
        if not content.strip() or _reasoning(message) or _calls(message):
            return refused
        tag = opened_block(prompt)
        has_reasoning = bool(tag) and closing_tag(tag) in content
        if has_reasoning or not tag:
            text = prompt + behind_prompt(prompt, content.strip())
        elif tag and self._closes_reasoning:
            text = f"{prompt}{closing_tag(tag)}\n\n{content.strip()}"
        else:
            return refused
        text += self._end
        return Response(turn=turn, prompt=prompt, after=text, end=len(text))

    def tokens(self, text: str) -> Tokens:
        """The text's tokens, without special tokens added."""
        coded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return Tokens(coded["input_ids"], coded["offset_mapping"])

    def marked(self, conversation: Conversation, num_tokens: int) -> list[bool] | None:
        """Whether each token is inside {% generation %}; None when the template tokenises differently."""
        template = self.template.of_row(conversation.columns, where=f"row {conversation.id}")
        mask = template.assistant_mask(conversation.messages, tools=conversation.tools)
        return mask if len(mask) == num_tokens else None


def _reasoning(message: Message) -> list[str]:
    fields: Mapping[str, Any] = message
    return [str(fields[key]) for key in ("reasoning_content", "thinking") if fields.get(key)]


def _calls(message: Message) -> list[str]:
    """Name, arguments and their values of each tool call; the template chooses how to write them."""
    functions = [call.get("function", call) for call in message.get("tool_calls") or ()]
    return [f"{function.get('name', '')} {_values(function.get('arguments'))}" for function in functions]


def _values(arguments: Any) -> str:
    if isinstance(arguments, Mapping):
        return " ".join(f"{key} {_values(value)}" for key, value in arguments.items())
    if isinstance(arguments, list | tuple):
        return " ".join(map(_values, arguments))
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _end_of_message(message: Message, body: str) -> tuple[int, str]:
    """(where the message's last word ends in `body`, what of it is missing there in words)."""
    at = 0
    content = str(message.get("content") or "")
    for part in [*_reasoning(message), *content.split(END_OF_REASONING)]:
        end = _end_of(part.strip(), body, at)
        if end < 0:
            return 0, f"{part.strip()!r:.60}"
        at = end
    last = at
    for call in _calls(message):
        for word in re.findall(r"\w+", call):
            end = _end_of(word, body, at)
            if end < 0:
                return 0, f"{word!r} of a tool call"
            last = max(last, end)
    return last, ""


def _end_of(part: str, body: str, start: int) -> int:
    """Where `part`, or at least its words, ends in `body` from `start`; -1 if it is not there."""
    at = body.find(part, start)
    if at >= 0:
        return at + len(part)
    end = end_of_words(part, body[start:])
    return start + end if end >= 0 else -1
