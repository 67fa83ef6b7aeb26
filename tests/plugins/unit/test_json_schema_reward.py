"""`json_schema`: JSON that fits, JSON that does not, and text that is none."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from verl_lite.plugins import Rollout
from verl_lite.plugins.builtin.json_schema import JsonSchemaOptions, JsonSchemaReward
from verl_lite.plugins.testing import score_rollouts

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
        ('{"name": "Ada", "name": "Bo"}', "no JSON: a key stands twice"),
        ('{"name": "Ada", "age": NaN}', "no JSON: NaN is no JSON value"),
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


def test_in_a_worker_and_a_reference_elsewhere_is_never_fetched() -> None:
    rollouts = [Rollout(completion='{"name": "Ada"}'), Rollout(completion="{}")]
    found = score_rollouts(JsonSchemaReward, rollouts, json_schema=PERSON)
    assert [timed.score.value for timed in found] == [1.0, 0.0]
    elsewhere = {"$ref": "http://127.0.0.1:9/schema.json"}
    [timed] = score_rollouts(JsonSchemaReward, rollouts[:1], json_schema=elsewhere)
    assert timed.score.outcome.value == "error"
    assert "Unresolvable" in timed.score.reason


def test_without_the_package_the_message_names_the_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules['jsonschema'] = None\n"
        "from verl_lite.plugins import RewardsConfig, Scorer\n"
        "def scorer(**options):\n"
        "    return Scorer(RewardsConfig(rewards={'j': {'use': 'json_schema', 'options': options}}))\n"
        "scorer()\n"
        "try:\n"
        "    scorer(json_schema={})\n"
        "except ValueError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigError rewards.j.options of reward 'json_schema': json_schema: ")
    assert "pip install 'verl-lite[json]'" in done.stdout
