"""Tool calls in each family's format: as vLLM reads them, and mistakes in words instead of guesses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.rollout.turns.tool_calls import choose_tool_parser, read_message
from verl_lite.errors import ConfigError
from verl_lite.plugins.calls import BY_NAME

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "fixtures" / "tool_calls.jsonl").read_text("utf-8").splitlines()
]
UNTYPED: Any = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"properties": {key: {"type": "string"} for key in keys}}},
    }
    for name, keys in {"look_up": ["city", "a", "b", "q", "n", "items", "text"], "add": ["a", "b"]}.items()
]


@pytest.mark.parametrize("family", sorted({row["family"] for row in ROWS}))
def test_whole_messages_are_read_as_by_vllm(family: str) -> None:
    """Recorded by fixtures/record_tool_calls.py, without the types of a schema."""
    rows = [row for row in ROWS if row["family"] == family and row["kind"] == "whole"]
    assert sum(len(row["calls"]) for row in rows) >= 6
    for row in rows:
        found = read_message(row["text"], UNTYPED, format=BY_NAME[family])
        assert [[call["name"], json.loads(call["arguments"])] for call in found.calls] == row["calls"]
        assert not found.mistake
        assert found.text.strip() == (row["content"] or "").strip()


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["kind"] != "whole"], ids=lambda row: row["family"]
)
def test_a_call_that_is_cut_or_broken_is_never_a_call(row: dict[str, Any]) -> None:
    """Tagged values are text in any case, so a number with two points is one; Llama's cut object is text."""
    found = read_message(row["text"], format=BY_NAME[row["family"]])
    if row["kind"] == "broken" and row["family"] in ("qwen3_coder", "glm45"):
        assert json.loads(found.calls[0]["arguments"])["b"] == "34.5."
    else:
        assert found.calls == ()
        assert found.mistake or row["family"] == "llama3_json"


@pytest.mark.parametrize(
    ("family", "text", "name", "arguments"),
    [
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"x": 1}, "id": "abcdefghi"}]', "f", {"x": 1}),
        ("mistral", '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"x": {"y": 2}}', "f", {"x": {"y": 2}}),
        ("llama3_json", '<|python_tag|>{"name": "f", "parameters": {"x": 1}}', "f", {"x": 1}),
        ("llama3_json", '{"type": "function", "name": "f", "parameters": {}}', "f", {}),
        (
            "deepseek_v3",
            '<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"x": 1}<｜tool▁call▁end｜>',
            "f",
            {"x": 1},
        ),
        ("pythonic", '<|python_start|>[a.f(x=-1, y=["b"])]<|python_end|>', "a.f", {"x": -1, "y": ["b"]}),
        ("pythonic", "<function_calls>f(x=1)</function_calls>", "f", {"x": 1}),
        ("json_list", 'functools[{"name": "f", "arguments": {"x": [1]}}]', "f", {"x": [1]}),
        ("json_list", '<|tool_call|>[{"name": "f", "arguments": {"x": 1}}]<|/tool_call|>', "f", {"x": 1}),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>', "f", {"x": 1}),
        (
            "harmony",
            "<|channel|>analysis<|message|>I must look.<|end|><|start|>assistant<|channel|>commentary "
            'to=functions.f <|constrain|>json<|message|>{"x": 1}',
            "f",
            {"x": 1},
        ),
        (
            "harmony",
            ' to=functions.f<|channel|>commentary json<|message|>{"x": 1}',
            "f",
            {"x": 1},
        ),
    ],
)
def test_other_spellings_of_a_family(family: str, text: str, name: str, arguments: dict[str, Any]) -> None:
    (call,) = read_message(text, format=BY_NAME[family]).calls
    assert (call["name"], json.loads(call["arguments"])) == (name, arguments)


def test_the_text_of_a_harmony_message_is_that_of_its_last_channel() -> None:
    text = "<|channel|>analysis<|message|>Two and two.<|end|><|start|>assistant<|channel|>final<|message|>4"
    assert read_message(text, format=BY_NAME["harmony"]).text == "4"
    call = "<|channel|>analysis<|message|>Two.<|end|><|start|>assistant to=functions.f<|message|>{}"
    assert read_message(call, format=BY_NAME["harmony"]).text == "Two."


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("<tool_call>", "the tool call is empty"),
        ("<tool_call>[1]</tool_call>", 'a tool call needs "name" and "arguments", got 1'),
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "are a JSON object, got [1]"),
        ('<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>', "NaN is not a JSON value"),
        ('<tool_call>{"name": "f"}</tool_call> and more', "this is no complete tool call: 'and more'"),
        ("<tool_call>" + "[" * 100_000, "the tool call is"),
        ('<tool_call>{"name": "f", "arguments": {"x": 1, "x": 2}}</tool_call>', "the key 'x' occurs twice"),
    ],
)
def test_a_mistake_is_told_in_words(text: str, mistake: str) -> None:
    found = read_message("before " + text, format=BY_NAME["hermes"])
    assert mistake in found.mistake
    assert found.calls == ()
    assert found.text == "before "


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[f(x={1})]", "are JSON values"),
        ("[f(x=b'1')]", "are JSON values"),
        ("[f(x=1e999)]", "not JSON compliant"),
        ("[f(**{'x': 1})]", "not by \\*\\*"),
        ("[f(1)]", "keyword arguments only"),
        ("[f(x=y)]", "literals"),
    ],
)
def test_python_that_is_no_json_is_a_mistake(text: str, mistake: str) -> None:
    found = read_message(text, format=BY_NAME["pythonic"])
    assert re.search(mistake, found.mistake)
    assert found.calls == ()


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "5", "5"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "5", "5"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", None),
        ({"type": ["string", "null"]}, "[1]", "[1]"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "5", 5),
        ({}, "five", "five"),
    ],
)
def test_tagged_values_have_the_types_of_the_schema(
    schema: dict[str, object], text: str, value: object
) -> None:
    tools: Any = [
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": schema}}}}
    ]
    said = f"<tool_call><function=f><parameter=x>{text}</parameter></function></tool_call>"
    (call,) = read_message(said, tools, format=BY_NAME["qwen3_coder"]).calls
    assert json.loads(call["arguments"]) == {"x": value}


@pytest.mark.timeout(30)  # in proportion to its square it would take minutes
@pytest.mark.parametrize(
    ("family", "begin"),
    {
        "deepseek_v3": "<｜tool▁call▁begin｜>f<｜tool▁sep｜>", "mistral": "[TOOL_CALLS]f[ARGS]{",
        "kimi_k2": "<|tool_call_begin|>f<|tool_call_argument_begin|>", "hermes": "<tool_call>",
        "harmony": " to=functions.f<|message|>", "qwen3_coder": "<function=f><parameter=x>1",
        "glm45": "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value>", "json_list": "<|tool_call|>{",
        "pythonic": "<|python_start|>[f(", "llama3_json": "<|python_tag|>{",
    }.items(),
)  # fmt: skip
def test_a_message_of_begins_takes_no_time(family: str, begin: str) -> None:
    found = read_message(begin * 10_000, format=BY_NAME[family])
    assert found.mistake
    assert found.calls == ()


def test_calls_in_reasoning_are_none() -> None:
    call = '<tool_call>{"name": "f", "arguments": {"q": "</think>"}}</tool_call>'
    hermes = BY_NAME["hermes"]
    assert read_message(f"<think>or {call[:20]}</think>No.", format=hermes).calls == ()
    assert read_message(f"<think>or {call[:20]}", format=hermes).mistake == ""
    (made,) = read_message(f"<think>hm</think>{call}", format=hermes).calls
    assert json.loads(made["arguments"]) == {"q": "</think>"}


@pytest.mark.parametrize(
    ("family", "format"),
    {
        "qwen2.5": "hermes", "qwen3": "hermes", "llama3.2": "llama3_json", "mistral-v3": "mistral",
        "glm4.5": "glm45", "kimi-k2": "kimi_k2", "gpt-oss": "harmony",
    }.items(),
)  # fmt: skip
def test_the_template_shows_the_format(family: str, format: str, chat_families: Any) -> None:
    parser: Any = choose_tool_parser("auto", chat_families[family].tokenizer)
    assert parser.keywords["format"].name == format


def test_an_unknown_format_is_refused(chat_families: Any) -> None:
    tokenizer = chat_families["zephyr"].tokenizer
    with pytest.raises(ConfigError, match="tool_parser=auto: the chat template of this model shows no known"):
        choose_tool_parser("auto", tokenizer)
    with pytest.raises(
        ConfigError, match=r"rollout\.tool_parser='hermess': expected auto, one of deepseek_v3"
    ):
        choose_tool_parser("hermess", tokenizer)
