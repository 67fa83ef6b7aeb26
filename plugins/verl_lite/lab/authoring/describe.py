"""Describe a reward, environment or tool: its contract, its options and whether each is documented."""

import inspect
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from pydantic import BaseModel

from verl_lite.plugins import EnvironmentDefinition, RewardDefinition, ToolDefinition
from verl_lite.plugins.environments.schema import signature_of
from verl_lite.plugins.settings import Setting, settings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A reward, environment or tool as `plugins show` prints it.

    undocumented  the options that neither a description of their own nor a docstring explains
    schema        the JSON Schema of the options
    declared      what else it declares: how a reward is called, or the JSON Schema of a tool's arguments
    """

    name: str
    kind: str
    distribution: str
    timeout_s: float
    docstring: str
    options_docstring: str
    options: tuple[Setting, ...]
    undocumented: tuple[str, ...]
    schema: dict[str, object]
    declared: dict[str, object]

    def to_json(self) -> dict[str, object]:
        """Plain data, flat; each option with `is_documented`."""
        plain = asdict(replace(self, options=()))
        bare, declared = plain.pop("undocumented"), plain.pop("declared")
        options = [asdict(replace(option, section=())) for option in self.options]
        for option in options:
            del option["section"]
            option["is_documented"] = option["name"] not in bare
        return {**plain, **declared, "options": options}


def describe(definition: RewardDefinition | EnvironmentDefinition | ToolDefinition) -> Description:
    declared: dict[str, object] = {}
    if isinstance(definition, RewardDefinition):
        declared = {name: getattr(definition, name) for name in ("form", "is_async", "isolate", "version")}
    elif isinstance(definition, ToolDefinition):
        declared = {
            "parameters": signature_of(definition.call, name=definition.name).schema["function"]["parameters"]
        }
    return Description(
        name=definition.name,
        kind=definition.kind,
        distribution=definition.distribution,
        timeout_s=definition.timeout_s,
        docstring=inspect.getdoc(definition.call) or "",
        options_docstring=_own_docstring(definition.options_model)
        if definition.options_model.model_fields
        else "",
        options=settings_of(definition.options_model),
        undocumented=undocumented_options(definition.options_model, definition.call),
        schema=definition.options_model.model_json_schema(),
        declared=declared,
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
