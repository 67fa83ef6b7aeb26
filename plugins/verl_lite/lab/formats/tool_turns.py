"""Tool calls and their results as peers write them, in OpenAI's form.

Items of the Responses API (also the OpenAI Agents SDK's), parts of a content (Anthropic, OpenTelemetry),
LangChain's messages, inspect's calls, calls as JSON text.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from verl_lite.plugins.calls import call_of
from verl_lite.plugins.rollout import content_text, refuse_media
from verl_lite.plugins.strict_json import strict_json

# of messages that have no role
TYPES = frozenset("human ai tool system function_call function_call_output reasoning".split())
_CALLS = frozenset({"tool_use", "tool_call", "function_call"})
_TEXTS = frozenset({"text", "input_text", "output_text"})
_RESULTS = frozenset({"tool_result", "tool_call_response", "function_call_output"})


def turns_of(message: dict[str, Any], role_of: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The messages that one of a peer's stands for, in OpenAI's form, with roles by `role_of`.

    An item of the Responses API that calls has `is_item`: it belongs to the reply before it.
    """
    kind = message.get("type")
    if "role" not in message and kind in ("function_call", "function_call_output", "reasoning"):
        if kind != "reasoning":
            yield from _of_parts([message], {"role": "assistant", "is_item": True})
        return
    if "role" not in message and "from" not in message:
        message = {"role": kind, **message}
    if "from" in message:
        message = {"role": message.pop("from"), "content": message.pop("value", None), **message}
    role = str(message.get("role"))
    turn = {**message, "role": role_of.get(role, role)}  # TRL's maybe_convert_to_chatml leaves "human"
    if role == "tool" and isinstance(function := turn.get("function"), str):  # inspect's
        turn["name"] = function
    if turn.get("tool_calls"):
        turn["tool_calls"] = [_call(one) for one in turn["tool_calls"]]
    parts = turn.pop("parts", None)
    found = turn.get("content") if parts is None else parts
    if isinstance(found, list) and (parts is not None or any(map(_is_of_tools, found))):
        yield from _of_parts(found, turn)
    else:
        yield turn


def _is_of_tools(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") in _CALLS | _RESULTS


def _of_parts(parts: Sequence[Mapping[str, Any]], turn: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One message per tool's result, then what is said and called. Raises DataError for images and files."""
    refuse_media(parts)
    results = [part for part in parts if part.get("type") in _RESULTS]
    for part in results:
        found = next((part[key] for key in ("content", "response", "output", "result") if key in part), "")
        if not isinstance(found, str) and not _is_parts(found):
            found = json.dumps(found, ensure_ascii=False)
        id = next((part[key] for key in ("tool_use_id", "call_id", "id") if key in part), "")
        yield {"role": "tool", "content": content_text(found), "tool_call_id": id}
    calls = [_call(part) for part in parts if part.get("type") in _CALLS]
    said = [part.get("text", part.get("content")) for part in parts if part.get("type") in _TEXTS]
    if calls or said or not results:
        text = "".join(one for one in said if isinstance(one, str))
        yield {**turn, "content": text, **({"tool_calls": calls} if calls else {})}


def _is_parts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(part, Mapping) and "type" in part for part in value)


def _call(given: object) -> dict[str, Any]:
    """A tool call in OpenAI's form; one that has it stays as it is."""
    value = strict_json(given) if isinstance(given, str) else given
    if not isinstance(value, Mapping):
        raise ValueError(f"a tool call needs a name and arguments, got {value!r:.80}")
    function = value.get("function")
    if isinstance(function, Mapping) and isinstance(function.get("arguments"), str):
        return dict(value)
    named = {**value, "name": function} if isinstance(function, str) else value  # inspect's
    call = call_of(named)
    id = value.get("call_id") or value.get("id") or ""
    return {
        "id": id,
        "type": "function",
        "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
    }
