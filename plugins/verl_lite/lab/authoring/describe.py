"""Describe a reward, environment or tool: its contract, its options and whether each is documented."""

import inspect
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from pydantic import BaseModel

from verl_lite.plugins import EnvironmentDefinition, RewardDefinition, ToolDefinition
from verl_lite.plugins.environments.binding import tool_signature
from verl_lite.plugins.settings import Setting, settings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Description:
    """What rewards, environments and tools share. `schema` is the JSON Schema of the options.

    `undocumented` names the options that neither a description of their own nor a docstring explains.
    """

    name: str
    distribution: str
    timeout_s: float
    docstring: str
    options: tuple[Setting, ...]
    undocumented: tuple[str, ...]
    schema: dict[str, object]

    def to_json(self) -> dict[str, object]:
        """Plain data, each option with `is_documented`."""
        options = [asdict(replace(option, section=())) for option in self.options]
        for option in options:
            del option["section"]
            option["is_documented"] = option["name"] not in self.undocumented
        plain = asdict(replace(self, options=()))
        del plain["undocumented"]
        return {**plain, "options": options}


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardDescription(_Description):
    """A reward as `plugins show` prints it."""

    form: str
    is_async: bool
    isolate: bool
    version: str
    options_docstring: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentDescription(_Description):
    """An environment or tool as `plugins show` prints it. `parameters` is a tool's JSON Schema."""

    kind: str
    parameters: dict[str, object]


def describe_environment(definition: EnvironmentDefinition | ToolDefinition) -> EnvironmentDescription:
    parameters: dict[str, object] = {}
    if isinstance(definition, ToolDefinition):
        parameters = tool_signature(definition, name=definition.name).schema["function"]["parameters"]
    return EnvironmentDescription(
        name=definition.name,
        kind=definition.kind,
        distribution=definition.distribution,
        timeout_s=definition.timeout_s,
        docstring=inspect.getdoc(definition.call) or "",
        options=settings_of(definition.options_model),
        undocumented=undocumented_options(definition.options_model, definition.call),
        schema=definition.options_model.model_json_schema(),
        parameters=parameters,
    )


def describe_reward(definition: RewardDefinition) -> RewardDescription:
    return RewardDescription(
        name=definition.name,
        distribution=definition.distribution,
        form=definition.form,
        is_async=definition.is_async,
        isolate=definition.isolate,
        timeout_s=definition.timeout_s,
        version=definition.version,
        docstring=inspect.getdoc(definition.call) or "",
        options_docstring=_own_docstring(definition.options_model),
        options=settings_of(definition.options_model),
        undocumented=undocumented_options(definition.options_model, definition.call),
        schema=definition.options_model.model_json_schema(),
    )


def undocumented_options(model: type[BaseModel], call: Callable[..., object]) -> tuple[str, ...]:
    """The options of `model` without a description that the docstrings of `model` and `call` do not name."""
    texts = f"{_own_docstring(model)}\n{inspect.getdoc(call) or ''}"
    return tuple(
        option.name
        for option in settings_of(model)
        if not option.description and not re.search(rf"\b{re.escape(option.name)}\b", texts)
    )


def _own_docstring(model: type[BaseModel]) -> str:
    """This model's own docstring, not one inherited from pydantic."""
    return inspect.cleandoc(model.__doc__) if model.__dict__.get("__doc__") and model.__doc__ else ""
