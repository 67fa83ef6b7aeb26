"""The environment and the tools that a config names, with their options, checked before anything starts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Self

from pydantic import BaseModel

from verl_lite.errors import ConfigError, PluginError
from verl_lite.plugins.config_file import validate_options
from verl_lite.plugins.discovery import RewardCatalog
from verl_lite.plugins.environments.bridges import BRIDGES
from verl_lite.plugins.environments.callables import is_called_by_class
from verl_lite.plugins.environments.config import EnvironmentConfig, ToolConfig
from verl_lite.plugins.environments.contract import (
    DefinitionT,
    EnvironmentDefinition,
    ToolDefinition,
    environment_of,
    tool_of,
)
from verl_lite.plugins.environments.schema import Signature, signature_of
from verl_lite.plugins.local_files import ByName, function_within, is_reference, named_object


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound(Generic[DefinitionT]):
    name: str
    definition: DefinitionT
    options: BaseModel
    timeout_s: float

    @classmethod
    def of(
        cls,
        definition: DefinitionT,
        options: Mapping[str, object],
        *,
        source: str,
        name: str = "",
        timeout_s: float | None = None,
    ) -> Self:
        """With its `options`, by default under its own name and deadline. Raises ConfigError."""
        return cls(
            name=name or definition.name,
            definition=definition,
            options=validate_options(definition.options_model, options, source=source),
            timeout_s=timeout_s or definition.timeout_s,
        )


class BoundTool(_Bound[ToolDefinition]):
    """A tool under the name that the model calls it by."""

    @property
    def has_state(self) -> bool:
        """Whether each trajectory has its own."""
        return self.definition.is_class and hasattr(self.definition.call, "open")

    def signature(self) -> Signature:
        """Raises PluginError for a function whose parameters are no JSON values."""
        return signature_of(self.definition.call, name=self.name)


class BoundEnvironment(_Bound[EnvironmentDefinition]):
    """An environment with its options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a worker process builds. `max_result_chars` is the length at which results are cut."""

    environment: BoundEnvironment | None = None
    tools: tuple[BoundTool, ...] = ()
    max_result_chars: int = 16_000


def bind(config: EnvironmentConfig, tools: Sequence[ToolConfig], catalog: RewardCatalog) -> Binding:
    """What `config` and `tools` name. Raises PluginError and ConfigError that say what is wrong."""
    bound = tuple(_bound_tool(item, catalog) for item in tools)
    names = Counter(item.name for item in bound)
    for name, count in names.items():
        if count > 1:
            raise ConfigError(f"tools: {count} tools are called {name!r}: give one another `name:`")
    for item in bound:
        item.signature()
    chosen = _bound_environment(config, catalog) if config.use else None
    return Binding(environment=chosen, tools=bound, max_result_chars=config.max_result_chars)


def find_tool(use: str, catalog: RewardCatalog) -> ToolDefinition:
    """The tool that `use` names. Raises PluginError that says why there is none."""
    if not is_reference(use):
        return catalog.registered(catalog.tools, "tool", use)
    found = named_object(use, use, kind="tool")
    module, path = found.place
    definition = tool_of(found.value, name="" if "." in path else path)
    is_sent_by_name = definition.is_class or getattr(found.value, "__qualname__", "") == path
    where = is_called_by_class(found.value, not_of=module) and function_within(found.value, use, module)
    if where:
        raise PluginError(f"use: {use}: {path} is {found.value!r:.80}, and no function{where}")
    call = found.value if is_sent_by_name else ByName(module, path)
    return replace(definition, call=call, distribution=found.source)


def _bound_tool(config: ToolConfig, catalog: RewardCatalog) -> BoundTool:
    return BoundTool.of(
        find_tool(config.use, catalog),
        config.options,
        source=f"tools: options of {config.use}",
        name=config.name,
        timeout_s=config.timeout_s,
    )


def _bound_environment(config: EnvironmentConfig, catalog: RewardCatalog) -> BoundEnvironment:
    definition = find_environment(config.use, catalog)
    source = f"environment.options of {config.use}"
    return BoundEnvironment.of(definition, config.options, source=source, timeout_s=config.timeout_s)


def find_environment(use: str, catalog: RewardCatalog) -> EnvironmentDefinition:
    """The environment that `use` names. Raises PluginError that says why there is none."""
    prefix, _, rest = use.partition(":")
    if prefix in BRIDGES:
        return BRIDGES[prefix](rest)
    if not is_reference(use):
        return catalog.registered(catalog.environments, "environment", use)
    found = named_object(use, use, kind="environment")
    return replace(environment_of(found.value, name=found.name), distribution=found.source)
