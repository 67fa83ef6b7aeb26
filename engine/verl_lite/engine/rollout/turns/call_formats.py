"""How model families write tool calls, as a table; `tool_calls.py` reads by it.

A message is text, then calls. `start` finds where the calls begin, `call` one call in what follows, with the
groups `json` (an object with name and arguments, or a list of them), or `name` with `arguments` (JSON),
`pairs` (tagged keys and values) or `python` (keyword arguments). `marks` are texts of a chat template whose
model writes this format; the first row with a mark in the template is taken.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFormat:
    """`pair` reads one key and value of the group `pairs`. `fillers` may stand around the calls.

    `channel` is what begins a part of a message (reasoning, answer) and ends the one before.
    """

    name: str
    marks: Sequence[str]
    start: re.Pattern[str]
    call: re.Pattern[str]
    pair: re.Pattern[str] | None = None
    channel: re.Pattern[str] | None = None
    fillers: Sequence[str] = ()


def _format(
    name: str,
    *,
    marks: Sequence[str],
    start: str,
    call: str,
    pair: str = "",
    channel: str = "",
    fillers: Sequence[str] = (),
) -> CallFormat:
    return CallFormat(
        name=name,
        marks=marks,
        start=re.compile(start, re.DOTALL),
        call=re.compile(call, re.DOTALL),
        pair=re.compile(pair, re.DOTALL) if pair else None,
        channel=re.compile(channel, re.DOTALL) if channel else None,
        fillers=fillers,
    )


_NAME = r"(?P<name>[\w.:-]+)"

FORMATS = (
    _format(
        "deepseek_v3",
        marks=("<｜tool▁calls▁begin｜>",),
        start="<｜tool▁calls▁begin｜>|<｜tool▁call▁begin｜>",
        call=rf"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?{_NAME}(?:\n```json\n|<｜tool▁sep｜>)"
        r"(?P<arguments>.*?)(?:\n```)?<｜tool▁call▁end｜>",
        fillers=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ),
    _format(
        "kimi_k2",
        marks=("<|tool_call_argument_begin|>",),
        start=r"<\|tool_calls_section_begin\|>|<\|tool_call_begin\|>",
        call=r"<\|tool_call_begin\|>\s*(?:functions\.)?(?P<name>[\w.-]+)(?::\d+)?\s*"
        r"<\|tool_call_argument_begin\|>(?P<arguments>.*?)<\|tool_call_end\|>",
        fillers=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    ),
    _format(
        "harmony",
        marks=("<|channel|>",),
        start=r"(?:<\|end\|>)?(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)? to=functions\.",
        call=rf"(?:<\|end\|>)?(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)? to=functions\.{_NAME}"
        r"(?:<\|channel\|>commentary)?\s*(?:<\|constrain\|>)?\s*(?:json)?<\|message\|>"
        r"(?P<arguments>.*?)(?:<\|call\|>|<\|end\|>|\Z)",
        channel=r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>\w+(?:<\|constrain\|>\w+)?<\|message\|>",
    ),
    _format(
        "mistral",
        marks=("[TOOL_CALLS]",),
        start=r"\[TOOL_CALLS\]",
        call=r"\[TOOL_CALLS\]\s*(?:(?P<json>[\[{].*)|(?P<name>[\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?"
        r"(?P<arguments>\{.*?\}))(?=\s*(?:\[TOOL_CALLS\]|\Z))",
    ),
    _format(
        "qwen3_coder",
        marks=("<function=",),
        start=r"<tool_call>|<function=",
        call=r"(?:<tool_call>\s*)?<function=(?P<name>[^>\n]+)>(?P<pairs>.*?)</function>(?:\s*</tool_call>)?",
        pair=r"<parameter=(?P<key>[^>\n]+)>\n?(?P<value>.*?)\n?</parameter>",
    ),
    _format(
        "glm45",
        marks=("<arg_key>",),
        start="<tool_call>",
        call=r"<tool_call>\s*(?P<name>[^\s<]+)\s*(?P<pairs>.*?)</tool_call>",
        pair=r"<arg_key>\s*(?P<key>.*?)\s*</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>",
    ),
    _format(
        "hermes",
        marks=("<tool_call>",),
        start="<tool_call>",
        call=r"<tool_call>(?P<json>.*?)(?:</tool_call>|\Z)",
    ),
    _format(
        "json_list",
        marks=("<|tool_call|>", "functools["),
        start=r"<\|tool_call\|>|functools(?=\[)",
        call=r"(?:<\|tool_call\|>|functools)\s*(?P<json>[\[{].*?[\]}])\s*(?:<\|/tool_call\|>|\Z)",
    ),
    _format(
        "pythonic",
        marks=("<|python_start|>", "[func_name1(", "<function_calls>", "<|tool_call_start|>"),
        start=r"(?:<\|python_start\|>|<\|tool_call_start\|>|<function_calls>)|\A\s*(?=\[[A-Za-z_][\w.]*\()",
        call=r"(?:<\|python_start\|>|<\|tool_call_start\|>|<function_calls>)?\s*(?P<python>.+?)\s*"
        r"(?:<\|python_end\|>|<\|tool_call_end\|>|</function_calls>|\Z)",
    ),
    _format(
        "llama3_json",
        marks=('"parameters": ', "<|python_tag|>"),
        start=r'<\|python_tag\|>|\A\s*(?=\{.*"(?:parameters|arguments)"\s*:)',
        call=r"(?:<\|python_tag\|>)?\s*(?P<json>\{.*\})\s*\Z",
    ),
)
