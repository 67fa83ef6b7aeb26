"""Tool calls in a text: tagged or bare JSON, tagged keys and values, and Python calls."""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from verl_lite.plugins.builtin.json_schema import strict_json

NAME_KEYS = ("name", "tool_name", "function_name")
ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")
_REASONING = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)
# Each finds the pieces that hold calls; the first one that finds any is taken.
_PIECES = (
    re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL),
    re.compile(r"\[TOOL_CALLS\]\s*(.*?)\s*(?=\[TOOL_CALLS\]|</s>|\Z)", re.DOTALL),
    re.compile(
        r"<\|(?:python_tag|python_start|tool_call|tool_call_start)\|>\s*(.*?)\s*(?:<\|[^|]*\|>|\Z)", re.DOTALL
    ),
    re.compile(r"(<function=.*?</function>)", re.DOTALL),
    re.compile(r"```(?:json|python|tool_code|tool_call)?[ \t]*\n(.*?)\n\s*```", re.DOTALL),
)
_TAGGED = re.compile(r"<function=([^>\n]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_GLM_PAIR = re.compile(r"<arg_key>\s*(.*?)\s*</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_BRACKETED = re.compile(r"([\w.-]+)(?:\[CALL_ID\]\w+)?\[ARGS\](\{.*\})", re.DOTALL)


class Call(NamedTuple):
    """`positional` are the arguments without a name, as in Python."""

    name: str
    arguments: Mapping[str, object]
    positional: Sequence[object] = ()


def calls_in(text: str) -> list[Call]:
    """The calls that a completion makes, in order, outside of its reasoning; empty for plain prose.

    Raises ValueError for text that begins a call and cannot be read as one.
    """
    text = _REASONING.sub("", text).strip()
    for pattern in _PIECES:
        pieces = pattern.findall(text)
        if pieces:
            return [call for piece in pieces for call in _read(piece)]
    if text[:1] in ("[", "{") or re.match(r"[A-Za-z_][\w.]*\(", text):
        return list(_read(text))
    return []


def call_of(value: object) -> Call:
    """A call as data: {name, arguments}, OpenAI's {function: {...}}, arguments also as JSON text.

    Raises ValueError for anything else.
    """
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        value = value["function"]
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r:.80} is no tool call")
    name = next((value[key] for key in NAME_KEYS if key in value), None)
    arguments: object = next((value[key] for key in ARGUMENT_KEYS if key in value), {})
    if isinstance(arguments, str):
        arguments = strict_json(arguments) if arguments.strip() else {}
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise ValueError(f"{value!r:.80} is no tool call: expected a name and arguments by name")
    return Call(name, dict(arguments))


def _read(piece: str) -> Iterator[Call]:
    piece = piece.strip()
    tagged = _TAGGED.findall(piece)
    if tagged:
        yield from (Call(name.strip(), _pairs(_PARAMETER, body)) for name, body in tagged)
    elif "<arg_key>" in piece:
        yield Call(piece.split("<arg_key>")[0].strip(), _pairs(_GLM_PAIR, piece))
    elif match := _BRACKETED.fullmatch(piece):
        yield call_of({"name": match[1], "arguments": match[2]})
    elif piece[:1] == "{" or re.match(r"\[\s*[{\]]", piece):
        value = _json_or_python(piece)
        yield from (call_of(one) for one in (value if isinstance(value, list) else [value]))
    else:
        yield from _python_calls(piece)


def _pairs(pattern: re.Pattern[str], text: str) -> dict[str, object]:
    """Tagged values are texts unless they are JSON."""
    found: dict[str, object] = {}
    for key, value in pattern.findall(text):
        if key.strip() in found:
            raise ValueError(f"the argument {key.strip()!r} occurs twice")
        try:
            found[key.strip()] = strict_json(value)
        except ValueError:
            found[key.strip()] = value
    return found


def _json_or_python(text: str) -> object:
    try:
        return strict_json(text)
    except json.JSONDecodeError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"neither JSON nor a call: {text[:80]!r}") from None


def _python_calls(text: str) -> Iterator[Call]:
    try:
        tree = ast.parse(text.strip(), mode="exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"no call that can be read: {text[:80]!r}") from None
    for statement in tree.body:
        value = statement.value if isinstance(statement, ast.Expr) else None
        for node in value.elts if isinstance(value, (ast.List, ast.Tuple)) else [value]:
            if not isinstance(node, ast.Call) or any(keyword.arg is None for keyword in node.keywords):
                raise ValueError(f"no call that can be read: {text[:80]!r}")
            named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
            yield Call(ast.unparse(node.func), named, [ast.literal_eval(one) for one in node.args])
