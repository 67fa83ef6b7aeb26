"""Rewards for structured output: `json_schema`."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score
from verl_lite.plugins.strict_json import strict_json
from verl_lite.verifiers import find_tagged

MISSING = "this reward needs the package jsonschema: pip install 'verl-lite[json]'"


class JsonSchemaOptions(ConfigModel):
    """Where the JSON is and what it must look like.

    JSON is read strictly: NaN, Infinity and duplicate keys are refused.
    """

    json_schema: Mapping[str, Any] | None = Field(
        default=None,
        description="a JSON Schema (draft 2020-12, or the one its `$schema` names); without one any JSON "
        "will do. References to other documents are refused, never fetched",
    )
    where: Literal["whole", "fence", "answer"] = Field(
        default="whole",
        description="whole: the completion is the JSON; fence: its only Markdown code block; "
        "answer: the content of its only <answer>...</answer>",
    )

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, schema: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if schema is not None:
            _make_validator(schema)
        return schema


@reward("json_schema", options=JsonSchemaOptions)  # isolated: its patterns can run for hours
class JsonSchemaReward:
    """1.0 when the completion holds JSON that fits the schema, else 0.0 with the first mismatch."""

    def __init__(self, options: JsonSchemaOptions) -> None:
        self._where = options.where
        schema = options.json_schema
        self._validator = None if schema is None else _make_validator(schema)

    def __call__(self, rollout: Rollout) -> Score:
        text, problem = _FIND[self._where](rollout.completion)
        if not problem:
            value, problem = _parsed(text)
            problem = problem or _misfit(self._validator, value)
        return Score(0.0, reason=problem) if problem else Score(1.0)


def _make_validator(schema: Mapping[str, Any]) -> Any:
    """A validator of `schema`; raises ValueError if it is not a schema or jsonschema is missing."""
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for
        from jsonschema_specifications import REGISTRY
    except ImportError:
        raise ValueError(MISSING) from None
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"not a JSON Schema: {error.json_path}: {error.message}") from None
    # With its own registry the validator never fetches a `$ref` from the network.
    return kind(schema, registry=REGISTRY)


def _misfit(validator: Any, value: Any) -> str:
    if validator is None:
        return ""
    try:
        error = next(iter(validator.iter_errors(value)), None)
    except RecursionError:
        return "the JSON is nested too deeply"
    return "" if error is None else f"at {error.json_path}: {error.message}"[:300]


def _parsed(text: str) -> tuple[Any, str]:
    """(the value, "") or (None, why `text` is no JSON)."""
    try:
        return strict_json(text), ""
    except RecursionError:
        return None, "the JSON is nested too deeply"
    except ValueError as error:
        return None, f"no JSON: {error}"[:300]


def _fenced(text: str) -> tuple[str, str]:
    lines = text.split("\n")
    fences = [at for at, line in enumerate(lines) if line.lstrip().startswith("```")]
    if len(fences) != 2:
        return "", f"{len(fences)} lines of ```, expected 2: one code block"
    return "\n".join(lines[fences[0] + 1 : fences[1]]), ""


def _answered(text: str) -> tuple[str, str]:
    found = find_tagged(text, "answer")
    if len(found) != 1:
        return "", f"{len(found)} times <answer>...</answer>, expected 1"
    return found[0].content, ""


_FIND: Mapping[str, Callable[[str], tuple[str, str]]] = {
    "whole": lambda text: (text, ""),
    "fence": _fenced,
    "answer": _answered,
}
