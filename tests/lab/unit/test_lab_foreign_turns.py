"""Tool calls and results in the forms that peers write them become turns in one form; no turn is lost."""

import json

import pytest

from verl_lite.errors import DataError
from verl_lite.lab.formats import FORMATS
from verl_lite.plugins.rollout import content_text, spoken

ASKED = [{"role": "user", "content": "2+2?"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
ASKS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
UNNAMED = {"content": "", "tool_calls": [CALL]}  # a reply without its role
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "4"}
SAYS = {"role": "assistant", "content": "It is 4."}
ITEMS = [
    {"type": "reasoning", "summary": []},
    {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
    {"type": "function_call_output", "call_id": "c1", "output": "4"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is 4."}]},
]
LANGCHAIN = [
    {"type": "human", "content": "2+2?"},
    {"type": "ai", "content": "", "tool_calls": [{"name": "add", "args": {"a": 1}, "id": "c1"}]},
    {"type": "tool", "content": "4", "tool_call_id": "c1"},
    {"type": "ai", "content": "It is 4."},
]
ANTHROPIC = [
    *ASKED,
    {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "4"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "It is 4."}]},
]
INSPECT = [
    {**ASKED[0], "source": "input"},
    {**ASKS, "tool_calls": [{"id": "c1", "function": "add", "arguments": {"a": 1}, "type": "function"}]},
    {**RESULT, "function": "add"},
    SAYS,
]
PARTS = [
    {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "add", "arguments": {"a": 1}}]},
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "4"}]},
    {"role": "assistant", "parts": [{"type": "text", "content": "It is 4."}]},
]


def result_of_verifiers(calls: list[object]) -> dict[str, object]:
    completion = [{**ASKS, "tool_calls": calls}, RESULT, SAYS]
    return {"example_id": 0, "prompt": ASKED, "completion": completion, "answer": "4", "task": "x"}


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("verifiers", result_of_verifiers([json.dumps(CALL)])),  # as results.jsonl of 0.1 has them
        ("verifiers", result_of_verifiers([{"id": "c1", "name": "add", "arguments": '{"a": 1}'}])),
        ("trl", {"step": 1, "prompt": ASKED, "completion": [ASKS, RESULT, SAYS], "advantage": 0.0}),
        ("nemo-gym", {"responses_create_params": {"input": ASKED}, "response": {"output": ITEMS}}),
        ("messages", {"messages": [*ASKED, *ITEMS]}),  # OpenAI's Agents SDK
        ("messages", {"messages": LANGCHAIN}),
        ("messages", {"messages": ANTHROPIC}),
        ("messages", {"messages": [*ASKED, *PARTS]}),  # OpenTelemetry's parts
        ("inspect", {"eval": {"task": "t"}, "id": 1, "epoch": 1, "input": "2+2?", "target": "4",
                     "messages": INSPECT, "output": {"choices": [{"message": SAYS}]}}),
    ],
)  # fmt: skip
def test_a_peer_s_calls_and_results_are_turns_in_one_form(format: str, row: dict[str, object]) -> None:
    (record,) = FORMATS[format].convert(row, 0)
    assert [(m["role"], m["content"]) for m in record.rollout.prompt] == [("user", "2+2?")]
    turns = record.rollout.turns
    said = [("assistant", ""), ("tool", "4"), ("assistant", "It is 4.")]
    assert [(turn.role, turn.content) for turn in turns] == said
    (called,) = turns[0].tool_calls
    assert called["function"]["name"] == "add"
    assert json.loads(called["function"]["arguments"]) == {"a": 1}
    assert record.rollout.completion == "It is 4."


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("openai-chat", {"messages": ASKED, "choices": [{"index": 0, "message": ASKS}]}),
        ("langfuse", {"traceId": "t", "type": "GENERATION", "input": ASKED, "output": ASKS}),
        ("langfuse", {"traceId": "t", "type": "GENERATION", "input": ASKED, "output": UNNAMED}),
        ("messages-completion", {"prompt": ASKED, "completion": [ASKS]}),
    ],
)
def test_a_reply_that_only_calls_keeps_its_call(format: str, row: dict[str, object]) -> None:
    (record,) = FORMATS[format].convert(row, 0)
    assert [turn.tool_calls for turn in record.rollout.turns] == [(CALL,)]


def test_parallel_calls_of_the_responses_api_are_one_turn() -> None:
    items = [SAYS, ITEMS[1], {**ITEMS[1], "call_id": "c2"}, ITEMS[2], {**ITEMS[2], "call_id": "c2"}, SAYS]
    (record,) = FORMATS["messages"].convert({"messages": [*ASKED, *items]}, 0)
    turns = record.rollout.turns
    assert [turn.role for turn in turns] == ["assistant", "tool", "tool", "assistant"]
    assert [call["id"] for call in turns[0].tool_calls] == ["c1", "c2"]
    assert turns[0].content == "It is 4."


def test_a_result_that_is_an_object_is_json_with_its_own_letters() -> None:
    part = {"type": "tool_call_response", "id": "c1", "response": {"city": "東京"}}
    messages = [*ASKED, PARTS[0], {"role": "tool", "parts": [part]}, SAYS]
    (record,) = FORMATS["messages"].convert({"messages": messages}, 0)
    assert record.rollout.turns[1].content == '{"city": "東京"}'


def test_a_call_without_a_name_is_a_bad_row() -> None:
    with pytest.raises(ValueError, match='a tool call needs "name" and "arguments"'):
        list(FORMATS["messages"].convert({"messages": [*ASKED, {**ASKS, "tool_calls": [{"id": "c1"}]}]}, 0))


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
FILE = {"type": "input_file", "file_id": "f1"}


@pytest.mark.parametrize("part", [IMAGE, {"type": "image_url", "image_url": {"url": "x"}}, SOUND, FILE])
def test_images_sound_and_files_of_turns_are_refused_by_type(part: dict[str, object]) -> None:
    """Beside tool parts, within a tool's result, in what the user says between, and in a reply."""
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "4"}
    places: list[dict[str, object]] = [
        {"role": "user", "content": [result, part]},
        {"role": "user", "content": [{**result, "content": [{"type": "text", "text": "4"}, part]}]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "4"}, part]},
    ]
    for message in places:
        row = {"messages": [*ANTHROPIC[:2], message, SAYS]}
        with pytest.raises(DataError, match=f"a part of type '{part['type']}': text alone is read"):
            list(FORMATS["messages"].convert(row, 0))
    with pytest.raises(DataError, match=f"'{part['type']}'"):
        spoken([{"role": "assistant", "content": [{"type": "text", "text": "4"}, part]}])


def test_text_of_the_responses_api_beside_tool_parts_is_kept() -> None:
    said = [{"type": "output_text", "text": "I add."}, ANTHROPIC[1]["content"][0]]  # type: ignore[index]
    row = {"messages": [*ASKED, {"role": "assistant", "content": said}, RESULT, SAYS]}
    (record,) = FORMATS["messages"].convert(row, 0)
    assert record.rollout.turns[0].content == "I add."


def test_a_prompt_with_an_image_is_shown_with_its_type() -> None:
    content = [IMAGE, {"type": "text", "text": "what is this?"}]
    assert content_text(content, shows_media=True) == "[image]what is this?"
