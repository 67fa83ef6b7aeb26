"""How model families write tool calls, as a table; `reading.py` reads by it.

A message is text, then calls. `start` finds where the calls begin, `call` one call in what follows, with the
groups `json` (an object with name and arguments, or a list of them), or `name` with `arguments` (JSON),
`pairs` (tagged keys and values) or `python` (keyword arguments). `marks` are texts of a chat template whose
model writes this format; the first row with a mark in the template is taken.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFormat:
    """`pair` reads one key and value of the group `pairs`. `fillers` may stand around the calls.

    Behind the last `end` there is no call, and behind the last `pair_end` no pair: without them, a message
    of many begins would take time in proportion to its square.

    `channel` is what begins a part of a message (reasoning, answer) and ends the one before.
    """

    name: str
    marks: Sequence[str]
    start: re.Pattern[str]
    call: re.Pattern[str]
    pair: re.Pattern[str] | None = None
    end: str = ""
    pair_end: str = ""
    channel: re.Pattern[str] | None = None
    fillers: Sequence[str] = ()


_re = partial(re.compile, flags=re.DOTALL)
_NAME = r"(?P<name>[\w.:-]+)"
_HARMONY = r"(?:<\|end\|>)?(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)? ?to=functions\."
_GLM_PAIRS = r"(?:\s*<arg_key>(?:(?!</arg_value>).)*</arg_value>)*"

FORMATS = (
    CallFormat(
        name="deepseek_v3",
        marks=("<｜tool▁calls▁begin｜>",),
        start=_re("<｜tool▁calls▁begin｜>|<｜tool▁call▁begin｜>"),
        call=_re(
            rf"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?{_NAME}(?:\n```json\n|<｜tool▁sep｜>)"
            r"(?P<arguments>.*?)(?:\n```)?<｜tool▁call▁end｜>"
        ),
        end="<｜tool▁call▁end｜>",
        fillers=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ),
    CallFormat(
        name="kimi_k2",
        marks=("<|tool_call_argument_begin|>",),
        start=_re(r"<\|tool_calls_section_begin\|>|<\|tool_call_begin\|>"),
        call=_re(
            r"<\|tool_call_begin\|>\s*(?:functions\.)?(?P<name>[\w.-]+)(?::\d+)?\s*"
            r"<\|tool_call_argument_begin\|>(?P<arguments>.*?)<\|tool_call_end\|>"
        ),
        end="<|tool_call_end|>",
        fillers=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    ),
    CallFormat(
        name="harmony",
        marks=("<|channel|>",),
        start=_re(_HARMONY),
        call=_re(
            rf"{_HARMONY}{_NAME}(?:<\|channel\|>commentary)?\s*(?:<\|constrain\|>\s*)?(?:json)?<\|message\|>"
            r"(?P<arguments>.*?)(?:<\|call\|>|<\|end\|>|\Z)"
        ),
        channel=_re(
            r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>\w+(?:<\|constrain\|>\w+)?<\|message\|>"
        ),
    ),
    CallFormat(
        name="mistral",
        marks=("[TOOL_CALLS]",),
        start=_re(r"\[TOOL_CALLS\]"),
        call=_re(
            r"\[TOOL_CALLS\]\s*(?:(?P<json>[\[{].*?)|(?P<name>[\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?"
            r"(?P<arguments>\{(?:(?!\[TOOL_CALLS\]).)*?\}))\s*(?=\[TOOL_CALLS\]|\Z)"
        ),
    ),
    CallFormat(
        name="qwen3_coder",
        marks=("<function=",),
        start=_re(r"<tool_call>|<function="),
        call=_re(
            r"(?:<tool_call>\s*)?<function=(?P<name>[^>\n]+)>(?P<pairs>.*?)</function>(?:\s*</tool_call>)?"
        ),
        end="</function>",
        pair=_re(r"<parameter=(?P<key>[^>\n]+)>\n?(?P<value>.*?)\n?</parameter>"),
        pair_end="</parameter>",
        fillers=("</tool_call>",),
    ),
    CallFormat(
        name="glm45",
        marks=("<arg_key>",),
        start=_re("<tool_call>"),
        call=_re(rf"<tool_call>\s*{_NAME}(?P<pairs>{_GLM_PAIRS})\s*</tool_call>"),
        pair=_re(r"<arg_key>\s*(?P<key>.*?)\s*</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>"),
    ),
    CallFormat(
        name="hermes",
        marks=("<tool_call>",),
        start=_re("<tool_call>"),
        call=_re(r"<tool_call>(?P<json>.*?)(?:</tool_call>|\Z)"),
    ),
    CallFormat(
        name="json_list",
        marks=("<|tool_call|>", "functools["),
        start=_re(r"<\|tool_call\|>|functools(?=\[)"),
        call=_re(r"(?:<\|tool_call\|>|functools)\s*(?P<json>.+?)(?:<\|/tool_call\|>|\Z)"),
    ),
    CallFormat(
        name="pythonic",
        marks=("<|python_start|>", "[func_name1(", "<function_calls>", "<|tool_call_start|>"),
        start=_re(r"<\|python_start\|>|<\|tool_call_start\|>|<function_calls>|\A\s*(?=\[[A-Za-z_][\w.]*\()"),
        call=_re(
            r"(?:<\|python_start\|>|<\|tool_call_start\|>|<function_calls>)?\s*(?P<python>.+?)"
            r"(?:<\|python_end\|>|<\|tool_call_end\|>|</function_calls>|\Z)"
        ),
    ),
    CallFormat(
        name="llama3_json",
        marks=('"parameters": ', "<|python_tag|>"),
        start=_re(r'<\|python_tag\|>|\A\s*(?=\{.*"(?:parameters|arguments)"\s*:)'),
        call=_re(r"(?:<\|python_tag\|>)?\s*(?P<json>\{.*\})\s*\Z"),
        end="}",
    ),
)
UNTAUGHT = (  # no template asks for these, but models write them
    CallFormat(
        name="fenced",
        marks=(),
        start=_re(r"```(?:json|python|tool_code|tool_call)?[ \t]*\n"),
        call=_re(r"```(?:json|python|tool_code|tool_call)?[ \t]*\n(?P<json>.*?)\n[ \t]*```"),
    ),
    CallFormat(
        name="bare",
        marks=(),
        start=_re(r"<\|python_tag\|>|\A\s*(?=[\[{]|[A-Za-z_][\w.]*\()"),
        call=_re(r"(?:<\|python_tag\|>)?\s*(?P<json>.+)"),
    ),
)
BY_NAME: Mapping[str, CallFormat] = {one.name: one for one in FORMATS}
