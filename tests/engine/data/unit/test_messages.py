"""What rows hold as a chat becomes messages, or one line that says which row, where, and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.config import DatasetConfig
from verl_lite.engine.data import read_rows, row_messages, to_messages, to_tools
from verl_lite.errors import DataError

USER = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "value",
    [
        "hi",
        USER,
        [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}],
        [{"role": "user", "content": ["h", "i"]}],
        [{"role": "user", "content": [{"type": "text", "text": "hi", "image": None}]}],  # as Arrow fills it
        [{"role": "user", "content": [{"type": "input_text", "text": "hi"}], "name": None}],
        [{"role": "human", "content": "hi"}],
        [{"from": "human", "value": "hi"}],
        [{"from": "user", "value": "hi", "weight": None}],
        json.dumps(USER),
        {"messages": USER},
    ],
)
def test_forms_of_one_message(value: Any) -> None:
    assert to_messages(value, where="row 0") == USER


def test_text_that_only_looks_like_a_chat_stays_text() -> None:
    for text in ('[{"a": 1}]', "[{", "[1, 2]", '[{"role": "user"}]', '[{"from": "A", "to": "B"}]'):
        assert to_messages(text, where="") == [{"role": "user", "content": text}]


def test_roles_of_sharegpt_and_calls() -> None:
    chat = [
        {"from": "system", "value": "s"},
        {"from": "human", "value": "u"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": "two"},
    ]
    assert to_messages(chat, where="") == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {"a": 1}}]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "two"},
    ]


def test_what_a_message_has_besides_passes_on() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}}
    chat = [
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "because"},
        {"role": "tool", "content": "2", "tool_call_id": "1", "name": "f", "audio": None},
        legacy,
    ]
    first, second, third = (dict(message) for message in to_messages(chat, where=""))
    assert first["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
    assert (first["content"], first["reasoning_content"]) == ("", "because")
    assert second == {"role": "tool", "content": "2", "tool_call_id": "1", "name": "f"}
    assert third == {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}


IMAGE = {"type": "image_url", "image_url": {"url": "data:..."}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{"role": "user", "content": [IMAGE]}], r"row 3, message 0: its content has"
         r" a part of type 'image_url', and models are trained on text alone; remove such rows"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "a part of type 'input_audio'"),
        ([{"role": "user", "content": [3]}], "its content has 3"),
        ([{"role": "user", "content": 3}], "expected content of text, got 3"),
        ([{"role": "user"}], r"row 3, message 0 \(user\): there is no 'content'"),
        ([{"speaker": "a", "text": "x"}], "expected a 'role', got speaker, text"),
        ([], "expected text or a list of messages"),
        (None, "expected text or a list of messages, got None"),
        ([["user", "hi"]], "expected text or a list of messages"),
    ],
)  # fmt: skip
def test_what_is_refused(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        to_messages(value, where="row 3")
    assert str(caught.value).startswith("row 3")


@pytest.mark.parametrize("column", ["images", "image", "videos", "audio"])
def test_columns_of_images_are_refused_unless_ignored(column: str, tmp_path: Path) -> None:
    row: dict[str, Any] = {"question": "what is this?", column: [{"bytes": b"...", "path": None}]}
    with pytest.raises(DataError, match=rf"row 5: column '{column}' .* .ignore: .{column}.. "):
        row_messages(row, DatasetConfig(path="x.jsonl"), where="row 5")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**row, column: [{"path": "a.png"}]}))
    config = DatasetConfig(path=str(path), ignore=(column,), reference="")
    assert read_rows(config, seed=0) == [{"question": "what is this?"}]
    for empty in (None, [], ""):
        assert row_messages({**row, column: empty}, DatasetConfig(path="x.jsonl"))


def test_tools_lose_what_arrow_added() -> None:
    tool = {
        "function": {
            "name": "f",
            "parameters": {"properties": {"a": {"type": "int", "items": None}, "b": None}},
        }
    }
    kept = [{"function": {"name": "f", "parameters": {"properties": {"a": {"type": "int"}}}}}]
    assert to_tools([tool], where="") == to_tools(json.dumps([tool]), where="") == kept
    assert to_tools(None, where="") == to_tools("", where="") == to_tools([], where="") == []
    with pytest.raises(DataError, match="row 2, column 'tools': expected a list of tools, got"):
        to_tools(["hammer"], where="row 2, column 'tools'")
    with pytest.raises(DataError, match="not valid JSON"):
        to_tools("hammer", where="")
