"""Reads tool calls in what a model wrote, by the table of formats.py.

Calls in reasoning (`<think>`) are none.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

from pydantic import JsonValue

from verl_lite.plugins.calls.formats import FORMATS, UNTAUGHT, CallFormat
from verl_lite.plugins.strict_json import strict_json, strict_json_values

NAME_KEYS = ("name", "tool_name", "function_name")
ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")
NO_JSON = "the tool call is not valid JSON"
Schemas = Mapping[str, Mapping[str, object]]
_REASONING = re.compile(r"\A(?:(?!<think>).)*?</think>|<think>.*?(?:</think>|\Z)", re.DOTALL)
_END = re.compile(r"(?:<\|(?:eom_id|eot_id|eot|im_end|endoftext)\|>|</s>)\Z")
_DATA = re.compile(r"\{|\[\s*[{\]]")


class Call(NamedTuple):
    """`positional` are the arguments without a name, as in Python."""

    name: str
    arguments: Mapping[str, object]
    positional: Sequence[object] = ()


def calls_in(text: str, schemas: Schemas | None = None) -> list[Call]:
    """The calls that a completion makes, in any notation, in order; empty for plain prose.

    `schemas` are the tools' parameters by name: a tagged value is text where they say so. Raises ValueError
    for text that begins a call and cannot be read as one.
    """
    text = _END.sub("", text.strip())
    begun = [(one, rest) for one in (*FORMATS, *UNTAUGHT) if (rest := split_calls(text, one)[1])]
    whole = [(one, rest) for one, rest in begun if one.call.search(_until_last(one.end, rest)[0])]
    for format, rest in (whole or begun)[:1]:
        return read_calls(rest, format, schemas, loose=True)
    return []


def split_calls(text: str, format: CallFormat) -> tuple[str, str]:
    """What stands before the calls, reasoning included, and the rest: "" without calls."""
    masked = _REASONING.sub(lambda found: " " * len(found[0]), text)
    began = format.start.search(masked)
    if began is None:
        return text, ""
    at = len(masked) - len(masked[began.start() :].lstrip())
    return text[:at], text[at:]


def read_calls(
    text: str, format: CallFormat, schemas: Schemas | None = None, *, loose: bool = False
) -> list[Call]:
    """The calls in `text`, which begins with the first of them.

    Unless `loose`, exactly as the format has them: then JSON and Python stand for each other, arguments may
    lack their names, keys may have other names, and what stands around calls is ignored. Raises ValueError
    that says what is wrong.
    """
    text, behind = _until_last(format.end, text)
    try:
        calls = [
            call
            for match in format.call.finditer(text)
            for call in _calls(match, format, schemas or {}, loose=loose)
        ]
    except (RecursionError, MemoryError):
        raise ValueError("the tool call is nested too deeply") from None
    left = format.call.sub("", text) + behind
    for filler in format.fillers:
        left = left.replace(filler, "")
    if left.strip() and not (loose and format.call.search(text)):
        raise ValueError(f"this is no complete tool call: {left.strip()!r:.80}")
    return calls


def _until_last(end: str, text: str) -> tuple[str, str]:
    at = text.rfind(end) + len(end) if end in text else 0
    return (text[:at], text[at:]) if end else (text, "")


def call_of(value: object, *, loose: bool = True) -> Call:
    """A call as data: {name, arguments}, arguments also as JSON text.

    If `loose`, also OpenAI's {function: {...}} and other names of the keys. Raises ValueError for anything
    else.
    """
    names, keys = (NAME_KEYS, ARGUMENT_KEYS) if loose else (NAME_KEYS[:1], ARGUMENT_KEYS[:2])
    inner = value.get("function") if loose and isinstance(value, Mapping) else None
    found = inner if isinstance(inner, Mapping) else value
    if not isinstance(found, Mapping):
        raise ValueError(f'a tool call needs "name" and "arguments", got {found!r:.80}')
    name = next((found[key] for key in names if key in found), None)
    if not isinstance(name, str):
        raise ValueError(f'a tool call needs "name" and "arguments", got {found!r:.80}')
    return Call(name, _object(next((found[key] for key in keys if key in found), {})))


def _object(given: object) -> Mapping[str, object]:
    """Arguments, as an object or its JSON text."""
    if isinstance(given, str):
        given = _json(given) if given.strip() else {}
    if not isinstance(given, Mapping):
        raise ValueError(f"the arguments of a tool call are a JSON object, got {given!r:.80}")
    return dict(given)


def _json(text: str) -> object:
    try:
        return cast(JsonValue, strict_json(text))
    except ValueError as error:
        raise ValueError(f"{NO_JSON}: {error}") from None


def _calls(match: re.Match[str], format: CallFormat, schemas: Schemas, *, loose: bool) -> Iterator[Call]:
    found = match.groupdict()
    body = next((found[kind] for kind in ("json", "python") if found.get(kind) is not None), None)
    if body is None and found.get("pairs") is None:
        yield Call(found["name"], _object(found["arguments"]))
    elif body is None:
        assert format.pair is not None
        name = found["name"].strip()
        yield Call(
            name,
            _typed(
                format.pair.findall(_until_last(format.pair_end, found["pairs"])[0]), schemas.get(name) or {}
            ),
        )
    elif _DATA.match(body.strip()) if loose else "json" in found:
        yield from _json_calls(body, loose=loose)
    else:
        yield from _python_calls(body, loose=loose)


def _json_calls(text: str, *, loose: bool) -> Iterator[Call]:
    """Objects with name and arguments: one, a list of them, or several with semicolons between (Llama)."""
    if not text.strip():
        raise ValueError("the tool call is empty")
    try:
        values = list(strict_json_values(text, between=";"))
    except ValueError as error:
        if not loose or not isinstance(error, json.JSONDecodeError):
            raise ValueError(f"{NO_JSON}: {error}") from None
        values = [_literal(text)]
    for value in values:
        yield from (call_of(one, loose=loose) for one in (value if isinstance(value, list) else [value]))


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        raise ValueError(f"neither JSON nor a call: {text[:80]!r}") from None


def _python_calls(text: str, *, loose: bool) -> Iterator[Call]:
    """`[f(x=1), g(y="a")]`, or one call per line."""
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the tool call is not valid Python: {error}") from None
    for statement in body:
        value = statement.value if isinstance(statement, ast.Expr) else None
        for call in value.elts if isinstance(value, (ast.List, ast.Tuple)) else [value]:
            if not isinstance(call, ast.Call) or (call.args and not loose):
                raise ValueError("a tool call is name(key=value, ...), with keyword arguments only")
            yield _python_call(call)


def _python_call(call: ast.Call) -> Call:
    if any(keyword.arg is None for keyword in call.keywords):
        raise ValueError("a tool call has its arguments one by one, not by **")
    try:
        named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
        return Call(ast.unparse(call.func), named, [ast.literal_eval(one) for one in call.args])
    except ValueError:
        raise ValueError("the arguments of a tool call are literals") from None


def _typed(pairs: Sequence[tuple[str, str]], schema: Mapping[str, object]) -> Mapping[str, object]:
    """Values written as plain text, by the schema's properties."""
    properties = cast(Mapping[str, Mapping[str, object]], schema.get("properties") or {})
    found: dict[str, object] = {}
    for key, text in ((key.strip(), text) for key, text in pairs):
        if key in found:
            raise ValueError(f"the argument {key!r} occurs twice")
        found[key] = _value(text, _types(properties.get(key) or {}))
    return found


def _value(text: str, types: set[str]) -> object:
    """Text where only texts are allowed, else JSON where it is JSON."""
    if types - {"null"} == {"string"} and not (types > {"null"} and text.strip() == "null"):
        return text
    try:
        return cast(JsonValue, strict_json(text))
    except ValueError:
        return text


def _types(schema: Mapping[str, object]) -> set[str]:
    """The types that a schema allows; empty where it does not say."""
    given = schema.get("type") or ()
    own = {given} if isinstance(given, str) else set(cast(Sequence[str], given))
    for key in ("anyOf", "oneOf"):
        for one in cast(Sequence[Mapping[str, object]], schema.get(key) or ()):
            own |= _types(one)
    return {"string" if one == "str" else one for one in own}
