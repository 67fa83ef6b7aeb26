"""Tool calls in what a model wrote, by the format of its family.

A call that cannot be read is a mistake of the model: it is returned in words, for the model to see.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from verl_lite.engine.model.chat_template import template_source
from verl_lite.engine.types import Tokenizer
from verl_lite.errors import ConfigError
from verl_lite.plugins import FunctionCall, ToolSchema
from verl_lite.plugins.calls import BY_NAME, FORMATS, Call, CallFormat, call_of, read_calls, split_calls

AUTO = "auto"
VLLM = "vllm:"
OF_TOKENS = {"openai": "harmony"}  # vLLM's parsers that have no text to read
CANNOT = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


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
    source = template_source(tokenizer)
    return next((one for one in FORMATS if any(mark in source for mark in one.marks)), None)


def read_message(text: str, tools: Sequence[ToolSchema] = (), *, format: CallFormat) -> ParsedMessage:
    """See choose_tool_parser.

    >>> hermes = BY_NAME["hermes"]
    >>> read_message('I ask. <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>', format=hermes)
    ParsedMessage(text='I ask. ', calls=({'name': 'f', 'arguments': '{"x": 1}'},), mistake='')
    >>> read_message('<tool_call>{"name": "f", "arguments": }', format=hermes).mistake
    'the tool call is not valid JSON: Expecting value: line 1 column 28 (char 27)'
    """
    before, rest = split_calls(text, format)
    if format.channel is not None:
        before = format.channel.split(before)[-1]
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    try:
        calls = map(_function_call, read_calls(rest, format, schemas))
        return ParsedMessage(text=before, calls=tuple(calls))
    except ValueError as error:
        return ParsedMessage(text=before, mistake=str(error))


def _function_call(call: Call) -> FunctionCall:
    try:
        arguments = json.dumps(call.arguments, ensure_ascii=False, allow_nan=False)
    except TypeError as error:  # Python's sets and bytes
        raise ValueError(f"the arguments of a tool call are JSON values: {error}") from None
    return FunctionCall(name=call.name, arguments=arguments)


def _vllm_parser(name: str, tokenizer: Tokenizer) -> ToolParser:
    """vLLM's parser of this name. It calls what it cannot read text: then there is no mistake to report."""
    try:
        from vllm.tool_parsers import ToolParser as VllmBase, ToolParserManager
    except ImportError:
        known = ", ".join(BY_NAME)
        raise ConfigError(
            f"rollout.tool_parser={VLLM}{name}: vLLM is not installed; built in are {known}"
        ) from None
    try:
        kind = ToolParserManager.get_tool_parser(name)
        kind(tokenizer)
    except KeyError:
        known = ", ".join(sorted(ToolParserManager.list_registered()))
        raise ConfigError(
            f"rollout.tool_parser={VLLM}{name}: vLLM has no such parser; it has {known}"
        ) from None
    except CANNOT as error:
        raise ConfigError(
            f"rollout.tool_parser={VLLM}{name}: vLLM's parser does not take this model's tokenizer: {error}"
        ) from None
    if name in OF_TOKENS:
        raise ConfigError(
            f"rollout.tool_parser={VLLM}{name} reads tokens and no text: use {OF_TOKENS[name]}, built in"
        )
    if kind.extract_tool_calls is VllmBase.extract_tool_calls:
        raise ConfigError(f"rollout.tool_parser={VLLM}{name}: vLLM's parser does not read a whole message")
    return _VllmParser(kind, tokenizer)


class _VllmParser:
    """Calls vLLM's parser `kind`, one per list of tools: it reads the types of tagged values from them."""

    def __init__(self, kind: Callable[..., Any], tokenizer: Tokenizer) -> None:
        self._kind = kind
        self._tokenizer = tokenizer
        self._made: dict[str, tuple[Any, Any]] = {}

    def __call__(self, text: str, tools: Sequence[ToolSchema]) -> ParsedMessage:
        parser, request = self._parser(tools)
        try:
            found = parser.extract_tool_calls(text, request)
            calls = [call_of(call.function.model_dump()) for call in found.tool_calls]
            return ParsedMessage(text=found.content or "", calls=tuple(map(_function_call, calls)))
        except CANNOT as error:
            return ParsedMessage(text=text, mistake=f"the tool call cannot be read: {error}"[:300])

    def _parser(self, tools: Sequence[ToolSchema]) -> tuple[Any, Any]:
        key = json.dumps(tools)
        if key not in self._made:
            from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

            request = ChatCompletionRequest.model_validate(
                {"messages": [], "model": "", "tools": list(tools) or None}
            )
            self._made[key] = (self._kind(self._tokenizer, request.tools), request)
        return self._made[key]
