"""Tool calls in what a model wrote, by the format of its family.

A call that cannot be read is a mistake of the model: it is returned in words, for the model to see.
"""

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from pydantic import JsonValue

from verl_lite.engine.rollout.turns.call_formats import FORMATS, CallFormat
from verl_lite.engine.types import Tokenizer
from verl_lite.errors import ConfigError
from verl_lite.plugins import FunctionCall, ToolSchema

AUTO = "auto"
VLLM = "vllm:"
Call = tuple[str, JsonValue]
BY_NAME: Mapping[str, CallFormat] = {one.name: one for one in FORMATS}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedMessage:
    """A message's text before its calls, and the calls; with a `mistake`, none of them can be trusted."""

    text: str
    calls: Sequence[FunctionCall] = ()
    mistake: str = ""


ToolParser = Callable[[str, Sequence[ToolSchema]], ParsedMessage]


def choose_tool_parser(name: str, tokenizer: Tokenizer) -> ToolParser:
    """The parser that `rollout.tool_parser` names; "auto": the one of the chat template's family.

    It reads a message with its special tokens, without its end of turn; arguments that a format writes as
    plain text get the types of the tools. Raises ConfigError for an unknown name, or if no format is known
    for the template.
    """
    if name.startswith(VLLM):
        return _vllm_parser(name.removeprefix(VLLM), tokenizer)
    found = _of_template(tokenizer) if name == AUTO else BY_NAME.get(name)
    if found is not None:
        return partial(read_message, format=found)
    known = ", ".join(BY_NAME)
    if name == AUTO:
        raise ConfigError(
            "rollout.tool_parser=auto: the chat template of this model shows no known way to write tool "
            f"calls; name one of {known}, or a parser of vLLM (vllm:NAME), if the model was trained on one"
        )
    raise ConfigError(f"rollout.tool_parser={name!r}: expected auto, one of {known}, or vllm:NAME")


def _of_template(tokenizer: Tokenizer) -> CallFormat | None:
    template = tokenizer.chat_template
    source = "\n".join(template.values()) if isinstance(template, dict) else str(template)
    return next((one for one in FORMATS if any(mark in source for mark in one.marks)), None)


def read_message(text: str, tools: Sequence[ToolSchema] = (), *, format: CallFormat) -> ParsedMessage:
    """See choose_tool_parser.

    >>> hermes = BY_NAME["hermes"]
    >>> read_message('I ask. <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>', format=hermes)
    ParsedMessage(text='I ask. ', calls=({'name': 'f', 'arguments': '{"x": 1}'},), mistake='')
    >>> read_message('<tool_call>{"name": "f", ', format=hermes).mistake
    'the tool call is not valid JSON: Expecting property name enclosed in double quotes (character 14)'
    """
    began = format.start.search(text)
    if began is None:
        return ParsedMessage(text=_plain(text, format))
    before, rest = _plain(text[: began.start()], format), text[began.start() :]
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    try:
        calls = list(_calls(rest, format, schemas))
    except ValueError as error:
        return ParsedMessage(text=before, mistake=str(error))
    except (RecursionError, MemoryError):  # of a call that is nested without end
        return ParsedMessage(text=before, mistake="the tool call is nested too deeply")
    left = format.call.sub("", rest)
    for filler in format.fillers:
        left = left.replace(filler, "")
    if left.strip():
        return ParsedMessage(text=before, mistake=f"this is no complete tool call: {left.strip()!r:.80}")
    return ParsedMessage(text=before, calls=tuple(map(_function_call, calls)))


def _plain(text: str, format: CallFormat) -> str:
    """The text inside the format's last channel, where it has channels."""
    return text if format.channel is None else format.channel.split(text)[-1]


def _calls(text: str, format: CallFormat, schemas: Mapping[str, Mapping[str, object]]) -> Iterator[Call]:
    for match in format.call.finditer(text):
        groups = match.groupdict()
        if groups.get("json") is not None:
            yield from _json_calls(groups["json"])
        elif groups.get("python") is not None:
            yield from _python_calls(groups["python"])
        elif groups.get("pairs") is not None:
            assert format.pair is not None
            pairs = {m["key"].strip(): m["value"] for m in format.pair.finditer(groups["pairs"])}
            name = groups["name"].strip()
            yield name, _typed(pairs, schemas.get(name, {}))
        else:
            yield groups["name"], _object(_json(groups["arguments"]))


def _json(text: str) -> JsonValue:
    try:
        return cast(JsonValue, json.loads(text, parse_constant=_refuse))
    except json.JSONDecodeError as error:
        raise _not_json(error) from None


def _not_json(error: json.JSONDecodeError) -> ValueError:
    return ValueError(f"the tool call is not valid JSON: {error.msg} (character {error.pos})")


def _refuse(constant: str) -> JsonValue:
    raise ValueError(f"the tool call is not valid JSON: {constant} is no number")


def _json_calls(text: str) -> Iterator[Call]:
    """Objects with name and arguments: one, a list of them, or several with semicolons between (Llama)."""
    decoder, at, text = json.JSONDecoder(parse_constant=_refuse), 0, text.strip()
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"the tool call is not valid JSON: {error.msg} (character {error.pos})"
            ) from None
        for call in value if isinstance(value, list) else [value]:
            yield _json_call(call)
        rest = text[end:].lstrip("; \n")
        at = len(text) - len(rest)
    if not text:
        raise ValueError("the tool call is empty")


def _json_call(call: JsonValue) -> Call:
    if not isinstance(call, dict) or not isinstance(name := call.get("name"), str):
        raise ValueError(f'a tool call needs "name" and "arguments", got {json.dumps(call)!r:.80}')
    given = call.get("arguments", call.get("parameters", {}))
    return name, _object(_json(given) if isinstance(given, str) else given)


def _object(value: JsonValue) -> JsonValue:
    if not isinstance(value, dict):
        raise ValueError(f"the arguments of a tool call are a JSON object, got {json.dumps(value)!r:.80}")
    return value


def _python_calls(text: str) -> Iterator[Call]:
    """`[f(x=1), g(y="a")]`, or one call per line."""
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the tool call is not valid Python: {error}") from None
    for statement in body:
        value = statement.value if isinstance(statement, ast.Expr) else None
        for call in value.elts if isinstance(value, ast.List) else [value]:
            if not isinstance(call, ast.Call) or call.args:
                raise ValueError("a tool call is name(key=value, ...), with keyword arguments only")
            try:
                arguments = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
            except ValueError:
                raise ValueError("the arguments of a tool call are literals") from None
            yield ast.unparse(call.func), _json(json.dumps(arguments))


def _typed(pairs: Mapping[str, str], schema: Mapping[str, object]) -> JsonValue:
    """Values written as plain text: text where the schema says so, else JSON where it is JSON."""
    properties = cast(Mapping[str, Mapping[str, object]], schema.get("properties", {}))

    def value(key: str, text: str) -> JsonValue:
        if properties.get(key, {}).get("type") == "string":
            return text
        try:
            return cast(JsonValue, json.loads(text))
        except json.JSONDecodeError:
            return text

    return {key: value(key, text) for key, text in pairs.items()}


def _function_call(call: Call) -> FunctionCall:
    name, arguments = call
    return FunctionCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False))


def _vllm_parser(name: str, tokenizer: Tokenizer) -> ToolParser:
    """vLLM's parser of this name. It calls what it cannot read text: then there is no mistake to report."""
    try:
        from vllm.tool_parsers import ToolParserManager
    except ImportError:
        known = ", ".join(BY_NAME)
        raise ConfigError(
            f"rollout.tool_parser={VLLM}{name}: vLLM is not installed; built in are {known}"
        ) from None
    try:
        made = ToolParserManager.get_tool_parser(name)(tokenizer)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ConfigError(f"rollout.tool_parser={VLLM}{name}: {error}") from None

    def parse(text: str, _: Sequence[ToolSchema]) -> ParsedMessage:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        found = made.extract_tool_calls(text, ChatCompletionRequest(messages=[], model=""))
        calls = [(call.function.name, _json(call.function.arguments)) for call in found.tool_calls]
        return ParsedMessage(text=found.content or "", calls=tuple(map(_function_call, calls)))

    return parse
