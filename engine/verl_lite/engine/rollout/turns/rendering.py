"""The tokens between two turns of the model, so that what it sampled is never tokenised again.

Behind a sampled turn comes what the chat template writes between that turn's end and the next turn's begin:
the difference of two renderings, which begins at the token that ends the turn. The model's own tokens stay,
also where the template would write the same turn in another form (spaces, JSON).

A template may also show the turns before differently once others follow: it drops reasoning (Qwen3,
DeepSeek-R1), moves the system message (Mistral) or writes another end of turn (gpt-oss). Then appending would
show the model what it never sees at inference, so the whole conversation is rendered again, and what follows
is a training sample of its own.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from verl_lite.engine.model.chat_template import PROBE, ChatTemplate, is_within
from verl_lite.engine.model.end_tokens import without_end
from verl_lite.errors import DataError
from verl_lite.plugins import FunctionCall, Message, ToolSchema

WHERE = "the conversation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model is to continue. `text` is the conversation as the template renders it for inference.

    `ids` follow the tokens so far; if it `restarts`, they are the whole conversation instead.
    """

    text: str
    ids: Sequence[int]
    restarts: bool = False


class TurnRenderer:
    """Renders the turns of trajectories with one template; answers end at `end_ids`."""

    def __init__(self, template: ChatTemplate, *, end_ids: Sequence[int]) -> None:
        self._template = template
        ids = dict.fromkeys([int(template.tokenizer.eos_token_id), *end_ids])
        special = map(re.escape, template.tokenizer.all_special_tokens)
        self._special = re.compile("|".join(special) or r"\Z")
        self._last_shown: tuple[list[Message], list[ToolSchema]] | None = None
        self._last_first = Prompt(text="", ids=())
        self._ends = {id: str(template.tokenizer.convert_ids_to_tokens(id)) for id in ids}

    def of_row(self, columns: Mapping[str, object]) -> "TurnRenderer":
        """The renderer with the template variables of a row; see ChatTemplate.of_row."""
        template = self._template.of_row(columns, where=WHERE)
        return self if template is self._template else TurnRenderer(template, end_ids=list(self._ends))

    def first(self, messages: Sequence[Message], tools: Sequence[ToolSchema]) -> Prompt:
        """The prompt of a trajectory. Raises DataError when the template refuses it or leaves a part out."""
        shown = (list(messages), list(tools))
        if shown != self._last_shown:  # the samples of one row begin alike, one after another
            text = self._template.render(messages, where=WHERE, tools=_as_tools(tools), for_inference=True)
            self._last_first = Prompt(text=text, ids=self._template.encode(text))
            self._last_shown = shown
        return self._last_first

    def next(
        self,
        before: Prompt,
        history: Sequence[Message],
        message: Message,
        answers: Sequence[Message],
        tools: Sequence[ToolSchema],
        *,
        said: str,
        sampled_ids: Sequence[int],
    ) -> Prompt:
        """The prompt of the next turn, after `message` was sampled as `sampled_ids` behind `before`.

        `history` are the messages before it, `answers` what follows it; `said` is what the model wrote,
        reasoning and calls included. Raises DataError when the template refuses the conversation.
        """
        text = self._render([*history, message, *answers], tools)
        verbatim = before.text + said
        if said and text.startswith(verbatim):  # as most templates show it: no second rendering
            tail: str | None = self._from_end(text[len(verbatim) :])
        else:
            tail = self._tail(before, history, message, answers, tools)
        if tail is not None and text.startswith(before.text) and text.endswith(tail):
            turn = text[len(before.text) : len(text) - len(tail)]
            if _shows(turn, message, said) and (ids := self._behind(sampled_ids, tail)) is not None:
                return Prompt(text=text, ids=ids)
        return Prompt(text=text, ids=self._template.encode(text), restarts=True)

    def refusal(self, history: Sequence[Message], message: Message, tools: Sequence[ToolSchema]) -> str:
        """Why the template cannot show `message` behind `history`; "" if it can."""
        try:
            self._render([*history, message], tools)
        except DataError as error:
            return str(error)
        return ""

    def text(self, sampled_ids: Sequence[int]) -> str:
        """A turn's text with its special tokens, without its end."""
        return self._template.decode(without_end(list(sampled_ids), list(self._ends)))

    def plain(self, text: str) -> str:
        """The text without special tokens."""
        return self._special.sub("", text)

    def _render(self, messages: Sequence[Message], tools: Sequence[ToolSchema]) -> str:
        return self._template.render(
            [_with_objects(message) for message in messages],
            where=WHERE,
            tools=_as_tools(tools),
            for_inference=True,
            may_lose=True,
        )

    def _tail(
        self,
        before: Prompt,
        history: Sequence[Message],
        message: Message,
        answers: Sequence[Message],
        tools: Sequence[ToolSchema],
    ) -> str | None:
        """What the template writes from the end of the turn on, found behind a turn of other words.

        Without an end of turn: all behind the turn's words. None if the turns before are shown differently.
        """
        text = self._render([*history, _probe(message), *answers], tools)
        if not text.startswith(before.text) or PROBE not in text[len(before.text) :]:
            return None
        return self._from_end(text[text.rindex(PROBE) + len(PROBE) :])

    def _from_end(self, behind: str) -> str:
        ends = [at for end in self._ends.values() if (at := behind.find(end)) >= 0]
        return behind[min(ends) :] if ends else behind

    def _behind(self, sampled_ids: Sequence[int], tail: str) -> list[int] | None:
        """The tokens of `tail` that were not sampled; None if the turn was ended by another token."""
        ids = self._template.encode(tail)
        if not sampled_ids or sampled_ids[-1] not in self._ends:
            return ids
        return ids[1:] if ids and ids[0] == sampled_ids[-1] else None


def _shows(turn: str, message: Message, said: str) -> bool:
    """Whether the rendered turn has what the model said: its words, up to its calls, and the calls' names."""
    names = [call["function"]["name"] for call in message.get("tool_calls") or ()]
    words = said if not names else said.partition(names[0])[0]
    return (not re.search(r"\w", words) or is_within(words, turn)) and all(name in turn for name in names)


def _probe(message: Message) -> Message:
    """The message with other words: its calls stay, as answers refer to them."""
    made = Message(role="assistant", content=PROBE)
    if calls := message.get("tool_calls"):
        words = FunctionCall(name="", arguments=f'{{"{PROBE}": "{PROBE}"}}')
        made["tool_calls"] = [
            {**call, "function": {**words, "name": call["function"]["name"]}} for call in calls
        ]
    return made


def _with_objects(message: Message) -> Message:
    """The message with its calls' arguments as objects: templates write the JSON themselves."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _object(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return cast(Message, {**message, "tool_calls": calls})


def _object(arguments: object) -> JsonValue:
    return cast(JsonValue, json.loads(arguments) if isinstance(arguments, str) else arguments)


def _as_tools(tools: Sequence[ToolSchema]) -> Sequence[Mapping[str, object]] | None:
    return cast(Sequence[Mapping[str, object]], tools) or None
