"""`tool_calls`: calls from turns, types, positions; golden and attacks are in the catalogue."""

import json
from pathlib import Path

import pytest

from verl_lite.plugins import Rollout
from verl_lite.plugins.builtin import ToolCallOptions, tool_calls_reward
from verl_lite.plugins.calls import Call, calls_in
from verl_lite.plugins.rollout import FunctionCall, ToolCall, Turn

RECORDED = Path(__file__).parents[2] / "engine" / "rollout" / "fixtures" / "tool_calls.jsonl"
ADD = {"name": "add", "parameters": {"properties": {"a": {"type": "number"}, "b": {"type": "integer"}}}}


def turn(*calls: tuple[str, dict[str, object]]) -> Turn:
    made = tuple(
        ToolCall(function=FunctionCall(name=name, arguments=json.dumps(given))) for name, given in calls
    )
    return Turn(role="assistant", content="", tool_calls=made)


def value(
    expected: object, completion: str = "", made: tuple[Turn, ...] = (), **options: object
) -> float | None:
    columns = {"reference": expected, "tools": [ADD]}
    rollout = Rollout(completion=completion, columns=columns, turns=made)
    return tool_calls_reward(rollout, ToolCallOptions.model_validate(options)).value


def test_calls_are_read_from_turns_where_there_are_any() -> None:
    """The last message only reports; of a trajectory, all calls count, or those of the first turn."""
    one, two = ("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 3})
    turns = (turn(one), Turn(role="tool", content="3"), turn(two), Turn(role="assistant", content="6"))
    both = [{"name": name, "arguments": given} for name, given in (two, one)]
    assert value(both, "6", turns) == 1.0
    assert value(both, "6", turns, ordered=True) == 0.0
    assert value(both[1:], "6", turns) == 0.0
    assert value(both[1:], "6", turns, turns="first") == 1.0
    assert value([], "6", (Turn(role="assistant", content="6"), Turn(role="user", content="?"))) == 1.0


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({"a": 1, "b": 2}, True),
        ({"a": 1.0, "b": 2}, True),  # a whole number is a number
        ({"a": 1, "b": 2.0}, False),  # and 2.0 no integer
        ({"a": "1", "b": 2}, False),
        ({"a": True, "b": 2}, False),
        ({"a": 1}, False),
        ({"a": 1, "b": 2, "c": 3}, False),
        ({"a": None, "b": 2}, False),
    ],
)
def test_values_are_equal_in_kind(given: dict[str, object], right: bool) -> None:
    assert (
        value(
            [{"name": "add", "arguments": {"a": 1, "b": 2}}], json.dumps({"name": "add", "arguments": given})
        )
        == right
    )


def test_parallel_calls_are_paired_as_well_as_can_be() -> None:
    """The first call fits both expected ones, the second only the first: greedy pairing would fail."""
    expected = [{"add": {"a": [1], "b": [1, 2]}}, {"add": {"a": [1], "b": [1]}}]
    calls = [{"name": "add", "arguments": {"a": 1, "b": b}} for b in (1, 2)]
    assert value(expected, json.dumps(calls)) == 1.0
    assert value(expected, json.dumps(calls[::-1])) == 1.0
    assert value(expected, json.dumps([calls[1], calls[1]]), value="fraction") == 0.5


def test_nested_values_have_accepted_ones_of_their_own() -> None:
    expected = [{"find": {"where": [{"city": ["Rome", "Roma"], "zip": ["", 1]}], "tags": [["a", "b"]]}}]
    for where, right in (({"city": "roma"}, 1.0), ({"city": "Rome", "zip": 2}, 0.0), ({"zip": 1}, 0.0)):
        assert (
            value(expected, json.dumps({"name": "find", "arguments": {"where": where, "tags": ["A", "b"]}}))
            == right
        )
    swapped = {"name": "find", "arguments": {"where": {"city": "Rome"}, "tags": ["b", "a"]}}
    assert value(expected, json.dumps(swapped)) == 0.0


def test_prose_has_no_calls_and_broken_ones_are_said_to_be() -> None:
    assert calls_in("It is (about) 4, see f(x) there.") == []
    assert calls_in("<think>f(1)</think>f(x=1)") == [Call("f", {"x": 1}, [])]
    for text in ("<tool_call>{</tool_call>", "[f(x=y)]", '{"name": 3}', "[f(x=1), 2]"):
        with pytest.raises(ValueError):  # noqa: PT011  whatever the parser of that notation says
            calls_in(text)


def test_every_family_is_read_from_text() -> None:
    """The recorded messages of vLLM's parsers that hold calls, and a family's text values by the schema."""
    rows = [json.loads(line) for line in RECORDED.read_text("utf-8").splitlines()]
    called = [row for row in rows if row["kind"] == "whole" and row["calls"]]
    assert len({row["family"] for row in called}) == 8
    text = {"properties": {key: {"type": "string"} for key in ("city", "a", "b", "q", "n", "items", "text")}}
    for row in called:
        found = calls_in(row["text"], {"look_up": text, "add": text})
        assert [[call.name, call.arguments] for call in found] == row["calls"], row["family"]
    tagged = "<function=add><parameter=zip>0123</parameter></function>"
    assert calls_in(tagged, {"add": {"properties": {"zip": {"type": "str"}}}})[0].arguments == {"zip": "0123"}
