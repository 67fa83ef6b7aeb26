"""From what a column holds to the messages that a chat template takes: roles, text, tool calls.

Known shapes are `{role, content}` (OpenAI, transformers) and `{from, value}` (ShareGPT). Content may be text
or a list of text parts. Whatever cannot be trained on (images, sound, files) is refused.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from verl_lite.errors import DataError
from verl_lite.lab.formats.chats import ROLE_OF, parsed_chat, transcript
from verl_lite.plugins import Message

TEXT_PARTS = ("text", "input_text", "output_text")
MEDIA_COLUMNS = ("images", "image", "videos", "video", "audios", "audio")


def to_messages(value: Any, *, where: str) -> list[Message]:
    """The chat in `value`: text (one user message), a list of messages, or such a list as JSON.

    Raises DataError, which begins with `where`, for anything else.
    """
    if isinstance(value, str):
        value = transcript(value) or parsed_chat(value)
        if isinstance(value, str):
            return [Message(role="user", content=value)]
    if isinstance(value, Mapping):  # {"messages": [...]}, or one message (ShareGPT's `chosen`)
        value = value["messages"] if isinstance(value.get("messages"), Sequence) else [value]
    if not isinstance(value, Sequence) or not value or not all(isinstance(item, Mapping) for item in value):
        raise DataError(f"{where}: expected text or a list of messages, got {_shown(value)}")
    return [_message(item, where=f"{where}, message {index}") for index, item in enumerate(value)]


def to_tools(value: Any, *, where: str) -> list[Mapping[str, Any]]:
    """The tools in `value`: a list of JSON schemas, or such a list as JSON. None or "" is no tools."""
    value = _parsed(value, where) if isinstance(value, str) else value
    if not value:
        return []
    if not isinstance(value, Sequence) or not all(isinstance(tool, Mapping) for tool in value):
        raise DataError(f"{where}: expected a list of tools, got {_shown(value)}")
    return [without_none(tool) for tool in value]


def refuse_media(row: Mapping[str, Any], *, where: str) -> None:
    """Raise DataError if the row has images, videos or sound."""
    for column in MEDIA_COLUMNS:
        value = row.get(column)
        if value is not None and not (isinstance(value, str | Sequence) and len(value) == 0):
            raise DataError(
                f"{where}: column {column!r} has {column} of this row, and models are trained on text alone; "
                f"leave the column out (ignore: [{column}]) if the rows make sense without"
            )


def without_none(value: Any) -> Any:
    """The value without keys that are None: Arrow gives every struct the keys of all others."""
    if isinstance(value, Mapping):
        return {key: without_none(part) for key, part in value.items() if part is not None}
    return [without_none(part) for part in value] if isinstance(value, list | tuple) else value


def _message(item: Mapping[str, Any], *, where: str) -> Message:
    given = {key: part for key, part in item.items() if part is not None}
    role_key, content_key = ("role", "content") if "role" in given else ("from", "value")
    role, content = given.pop(role_key, None), given.pop(content_key, None)
    if not isinstance(role, str):
        raise DataError(f"{where}: expected a 'role', got {', '.join(map(str, item)) or 'nothing'}")
    legacy = given.pop("function_call", None)
    calls = given.pop("tool_calls", None) or ([legacy] if legacy else None)
    if role == "function_call":
        calls, content = [_call(_parsed(content, where) if isinstance(content, str) else content)], ""
    elif content is None and not calls and not given.keys() & {"reasoning_content", "thinking"}:
        raise DataError(f"{where} ({role}): there is no {content_key!r}; it has {', '.join(map(str, item))}")
    message: dict[str, Any] = {"role": ROLE_OF.get(role, role), "content": _text(content, where=where)}
    if calls:
        message["tool_calls"] = [_call(without_none(call)) for call in calls]
    return cast(Message, {**message, **without_none(given)})


def _text(content: Any, *, where: str) -> str:
    """The content's text: its parts follow each other directly, as templates write them."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence):
        raise DataError(f"{where}: expected content of text, got {_shown(content)}")
    return "".join(_part(part, where=where) for part in content)


def _part(part: Any, *, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and isinstance(part.get("text"), str) and kind in (None, *TEXT_PARTS):
        return str(part["text"])
    name = f"a part of type {kind!r}" if kind else _shown(part)
    raise DataError(
        f"{where}: its content has {name}, and models are trained on text alone; remove such rows, or keep "
        "only the text parts"
    )


def _call(call: Any) -> Any:
    """A tool call with its arguments as an object: templates write the JSON themselves."""
    if not isinstance(call, Mapping):
        return call
    if "function" in call and isinstance(call["function"], Mapping):
        return {**call, "function": _call(call["function"])}
    arguments = call.get("arguments")
    if isinstance(arguments, str):
        try:
            return {**call, "arguments": json.loads(arguments)}
        except json.JSONDecodeError:
            return call
    return call


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error}") from None


def _shown(value: Any) -> str:
    return f"{value!r:.80}"
