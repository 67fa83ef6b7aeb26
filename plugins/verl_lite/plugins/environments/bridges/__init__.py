"""Environments of other packages: `use: "verifiers:NAME"` and `use: "openenv:http://host:port"`."""

from collections.abc import Callable, Mapping

from verl_lite.plugins.environments.bridges.openenv import openenv_environment
from verl_lite.plugins.environments.bridges.verifiers import verifiers_environment
from verl_lite.plugins.environments.contract import EnvironmentDefinition

BRIDGES: Mapping[str, Callable[[str], EnvironmentDefinition]] = {
    "openenv": openenv_environment,
    "verifiers": verifiers_environment,
}
"""From the prefix of `use` to a function of the rest; that raises PluginError."""
