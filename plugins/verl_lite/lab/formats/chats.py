"""The shapes in which files hold conversations: OpenAI's roles, ShareGPT's `from` and `value`, JSON text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from verl_lite.lab.formats.rows import without_none
from verl_lite.lab.formats.tool_turns import TYPES, turns_of
from verl_lite.plugins.paths import literal

ROLE_OF = {
    "human": "user",
    "customer": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "bot", "model", "ai", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response", "tool-response"), "tool"),
    "tool-call": "assistant",
}

_HH_TURN = re.compile(r"\s*\n\n(Human|Assistant): ?")


def is_chat(value: object) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(m, Mapping) and ({"role", "from"} & m.keys() or _is_typed(m)) for m in value)
    )


def _is_typed(message: Mapping[str, object]) -> bool:
    return isinstance(kind := message.get("type"), str) and kind in TYPES


def parsed_chat(text: str) -> Any:
    """The list of messages that `text` is as JSON or as Python writes it; any other text as it is.

    An answer may be such a list too ('[{"from": "A", "to": "B"}]'): every message must say something.
    """
    read = literal(text.strip()) if text.lstrip().startswith("[{") else None
    says = {"value"}, {"content", "parts", "tool_calls"}
    is_one = read and is_chat(read) and all(message.keys() & says["role" in message] for message in read)
    return read if is_one else text


def transcript(text: str) -> list[dict[str, Any]]:
    r"""The messages of HH-RLHF's text, without an empty last one; none for any other text.

    >>> [turn["role"] for turn in transcript("\n\nHuman: sky?\n\nAssistant: ")], transcript("sky?")
    (['user'], [])
    """
    before, *parts = _HH_TURN.split(text)
    if before or parts[:1] != ["Human"]:
        return []
    roles = ("user" if who == "Human" else "assistant" for who in parts[::2])
    turns = [{"role": role, "content": said} for role, said in zip(roles, parts[1::2], strict=True)]
    return turns if turns[-1]["content"].strip() else turns[:-1]


def side(prompt: Any, said: Any) -> list[dict[str, Any]]:
    """One side of a preference pair as a whole conversation: the prompt stands before it, if not in it.

    Both are text or messages; `prompt` may be None. Raises TypeError for anything else.
    """
    asked = [] if prompt is None else messages_of(prompt, role="user")
    turns = messages_of(said, role="assistant")
    held = {(turn["role"], str(turn.get("content")).strip()) for turn in turns}
    system = asked[:1] if asked and asked[0]["role"] == "system" else []
    if any((turn["role"], str(turn.get("content")).strip()) not in held for turn in asked[len(system) :]):
        return [*asked, *turns]
    return turns if turns[0]["role"] == "system" else [*system, *turns]


def messages_of(value: Any, *, role: str) -> list[dict[str, Any]]:
    """Messages as such; of text, the conversation in it, or one message of `role`."""
    read = (transcript(value) or as_turns(value)) if isinstance(value, str) else value
    return [{"role": role, "content": read}] if isinstance(read, str) else chat(read)


def as_turns(text: Any) -> Any:
    """Messages as such, also from JSON text; plain text as it is."""
    read = parsed_chat(text) if isinstance(text, str) else text
    return chat(read) if isinstance(read, Mapping) or is_chat(read) else read


def chat(messages: Any) -> list[dict[str, Any]]:
    """Messages with role and content, also from ShareGPT's `from` and `value`, and JSON text.

    Tool calls have OpenAI's form, whoever wrote them: as items of the Responses API, parts of a content
    (Anthropic, OpenTelemetry), name and arguments alone, or JSON text. Raises ValueError for any other.
    """
    if isinstance(messages, str):
        messages = parsed_chat(messages)
    if isinstance(messages, Mapping):
        messages = [messages]
    if not is_chat(messages):
        raise TypeError("expected a list of messages, each with its role")
    turns: list[dict[str, Any]] = []
    for turn in (turn for message in messages for turn in turns_of(without_none(message), ROLE_OF)):
        if turn.pop("is_item", False) and turns and turns[-1]["role"] == "assistant":
            turns[-1]["tool_calls"] = [*turns[-1].get("tool_calls", ()), *turn["tool_calls"]]
        else:
            turns.append(turn)
    return turns
