"""Describe a reward: its contract, its options and whether each is documented."""

import inspect
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from verl_lite.plugins import EnvironmentDefinition, RewardDefinition, ToolDefinition
from verl_lite.plugins.environments.binding import tool_signature


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionDescription:
    """`default` is "" for an option that must be given."""

    name: str
    type: str
    default: str
    is_required: bool
    description: str
    is_documented: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardDescription:
    """A reward as `plugins show` prints it. `schema` is the JSON Schema of its options."""

    name: str
    distribution: str
    form: str
    is_async: bool
    isolate: bool
    timeout_s: float
    version: str
    docstring: str
    options_docstring: str
    options: tuple[OptionDescription, ...]
    schema: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentDescription:
    """An environment or tool as `plugins show` prints it. `parameters` is a tool's JSON Schema."""

    name: str
    kind: str
    distribution: str
    timeout_s: float
    docstring: str
    options: tuple[OptionDescription, ...]
    schema: dict[str, Any]
    parameters: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def describe_environment(definition: EnvironmentDefinition | ToolDefinition) -> EnvironmentDescription:
    parameters: dict[str, Any] = {}
    if isinstance(definition, ToolDefinition):
        parameters = tool_signature(definition, name=definition.name).schema["function"]["parameters"]
    return EnvironmentDescription(
        name=definition.name,
        kind=definition.kind,
        distribution=definition.distribution,
        timeout_s=definition.timeout_s,
        docstring=inspect.getdoc(definition.call) or "",
        options=tuple(_described_options(definition.options_model, definition.call)),
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
        options=tuple(describe_options(definition)),
        schema=definition.options_model.model_json_schema(),
    )


def undocumented_options(model: type[BaseModel], call: Callable[..., object]) -> list[str]:
    return [option.name for option in _described_options(model, call) if not option.is_documented]


def describe_options(definition: RewardDefinition) -> list[OptionDescription]:
    """A reward's options. One counts as documented if its field has a description, or if the docstring
    of the options or of the reward names it."""
    return _described_options(definition.options_model, definition.call)


def _described_options(model: type[BaseModel], call: Callable[..., object]) -> list[OptionDescription]:
    texts = f"{_own_docstring(model)}\n{inspect.getdoc(call) or ''}"
    described = []
    for field_name, field in model.model_fields.items():
        name = field.alias or field_name
        description = field.description or ""
        described.append(
            OptionDescription(
                name=name,
                type=_type_name(field.annotation),
                default="" if field.is_required() else _default(field),
                is_required=field.is_required(),
                description=description,
                is_documented=bool(description) or re.search(rf"\b{re.escape(name)}\b", texts) is not None,
            )
        )
    return described


def _default(field: FieldInfo) -> str:
    return repr(field.get_default(call_default_factory=False)) if field.default_factory is None else "(new)"


def _own_docstring(model: type[BaseModel]) -> str:
    """This model's own docstring, not one inherited from pydantic."""
    return inspect.cleandoc(model.__doc__) if model.__dict__.get("__doc__") and model.__doc__ else ""


def _type_name(annotation: Any) -> str:
    """The type as its author would write it, without the constraints.

    >>> from typing import Annotated, Literal, Optional
    >>> _type_name(Optional[Annotated[int, "above 0"]]), _type_name(dict[str, Literal["a"]])
    ('int | None', "dict[str, Literal['a']]")
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is not None:
        return f"{_type_name(origin)}[{', '.join(map(_type_name, arguments))}]"
    if annotation is type(None):
        return "None"
    return "..." if annotation is Ellipsis else getattr(annotation, "__name__", str(annotation))
