"""`json_schema`: JSON that fits, JSON that does not, and text that is none."""

from typing import Any

import pytest
from pydantic import ValidationError

from verl_lite.plugins import Rollout
from verl_lite.plugins.builtin import JsonSchemaOptions, JsonSchemaReward

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def score(text: str, schema: Any = PERSON, where: str = "whole") -> Any:
    options = JsonSchemaOptions.model_validate({"json_schema": schema, "where": where})
    return JsonSchemaReward(options)(Rollout(completion=text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"name": "Ada", "age": 36}', ""),
        ('  {"name": "Ada"}\n', ""),
        ('{"age": 36}', "at $: 'name' is a required property"),
        ('{"name": "Ada", "age": -1}', "at $.age: -1 is less than the minimum of 0"),
        ('{"name": "Ada", "age": true}', "at $.age: True is not of type 'integer'"),
        ('{"name": "Ada", "wit": 1}', "at $: Additional properties are not allowed"),
        ('{"name": "Ada", "name": "Bo"}', "no JSON: the key 'name' occurs twice"),
        ('{"name": "Ada", "age": NaN}', "no JSON: NaN is not a JSON value"),
        ('{"name": "Ada"} trailing', "no JSON: Extra data"),
        ("{'name': 'Ada'}", "no JSON: Expecting property name"),
        ("", "no JSON: Expecting value"),
        ("[" * 200_000, "the JSON is nested too deeply"),
        ('{"age": ' + "9" * 10_000 + "}", "no JSON: Exceeds the limit"),
    ],
)
def test_json(text: str, reason: str) -> None:
    found = score(text)
    assert found.value == (0.0 if reason else 1.0)
    assert reason in found.reason


def test_where_it_stands_and_no_schema() -> None:
    assert score('Here:\n```json\n{"name": "Ada"}\n```\n', where="fence").value == 1.0
    assert score('{"name": "Ada"}', where="fence").value == 0.0
    assert score('so <answer>{"name": "Ada"}</answer>', where="answer").value == 1.0
    assert "2 times" in score("<answer>1</answer><answer>2</answer>", where="answer").reason
    assert score("[1, 2]", schema=None).value == 1.0
    assert score("[1, 2", schema=None).value == 0.0
    assert score("[" * 900 + "]" * 900, schema=None).value == 1.0


@pytest.mark.parametrize(
    ("schema", "message"),
    [({"type": "objekt"}, "not a JSON Schema: "), ({"minimum": "low"}, "not a JSON Schema: ")],
)
def test_schemas_that_are_none_are_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JsonSchemaOptions(json_schema=schema)
