"""The shapes in which files hold conversations: OpenAI's roles, ShareGPT's `from` and `value`, JSON text."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from verl_lite.lab.formats.rows import without_none
from verl_lite.plugins.paths import literal

ROLE_OF = {
    "human": "user",
    "customer": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "bot", "model", "ai", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response"), "tool"),
}


def is_chat(value: object) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(m, Mapping) and ("role" in m or "from" in m) for m in value)
    )


def parsed_chat(text: str) -> Any:
    """The list of messages that `text` is as JSON or as Python writes it; any other text as it is.

    An answer may be such a list too ('[{"from": "A", "to": "B"}]'): every message must say something.
    """
    read = literal(text.strip()) if text.lstrip().startswith("[{") else None
    says = {"value"}, {"content", "parts", "tool_calls"}
    is_one = read and is_chat(read) and all(message.keys() & says["role" in message] for message in read)
    return read if is_one else text


def as_turns(text: Any) -> Any:
    """Messages as such, also from JSON text; plain text as it is."""
    read = parsed_chat(text) if isinstance(text, str) else text
    return chat(read) if isinstance(read, Mapping) or is_chat(read) else read


def chat(messages: Any) -> list[dict[str, Any]]:
    """Messages with role and content, also from ShareGPT's `from` and `value`, and JSON text."""
    if isinstance(messages, str):
        messages = parsed_chat(messages)
    if isinstance(messages, Mapping):
        messages = [messages]
    if not is_chat(messages):
        raise TypeError(f"expected a list of messages, got {type(messages).__name__}")
    return [_turn(message) for message in messages]


def _turn(message: Mapping[str, Any]) -> dict[str, Any]:
    turn = without_none(message)
    if "parts" in turn:
        turn = {"content": _parts_text(turn.pop("parts")), **turn}
    if "from" in turn:
        turn = {"role": turn.pop("from"), "content": turn.pop("value", None), **turn}
    role = str(turn.get("role"))
    return {**turn, "role": ROLE_OF.get(role, role)}  # TRL's maybe_convert_to_chatml leaves "human" and "gpt"


def _parts_text(parts: Any) -> str:
    """The text in OpenTelemetry's message parts."""
    texts = [part.get("content") for part in parts if part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))
