"""`verl-lite plugins show`: one reward, its options, and how to use it in a config."""

import json
import re
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import AsJson, NoPlugins, PluginKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verl_lite.lab.authoring import Description
    from verl_lite.plugins.settings import Setting

_CALLED = {"rollout": "one rollout", "batch": "rollouts in batches", "group": "all samples of a prompt"}
_IN_A_CONFIG = {
    "reward": "\nrewards:\n  {component}: {line}",
    "environment": "\nenvironment: {line}",
    "tool": "\ntools: [{line}]",
}


def show_reward(
    name: Annotated[str, typer.Argument(help="A reward's name, ./file.py:function or module:function")],
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of its options")] = False,
    kind: PluginKind = "",
    as_json: AsJson = False,
    no_plugins: NoPlugins = False,
) -> None:
    """Show what a reward, environment or tool does, its options and where it runs.

    Example: verl-lite plugins show length --schema
    """
    from verl_lite.cli.terminal import print_json
    from verl_lite.lab.authoring import describe
    from verl_lite.lab.authoring.kinds import other_kind
    from verl_lite.plugins import find_rewards

    catalog = find_rewards(load_plugins=not no_plugins)
    described = describe(other_kind(name, kind, catalog) or catalog.get(name))
    if schema:
        print(json.dumps(described.schema, indent=2))
    elif as_json:
        print_json(described.to_json())
    else:
        _print(described, use=name)


def _print(described: "Description", use: str) -> None:
    declared = described.declared
    is_reward = described.kind == "reward"
    headline = f"version {declared['version']}" if is_reward else described.kind
    print(f"{described.name} ({described.distribution}), {headline}\n")
    print(described.docstring or "(it has no docstring)")
    called = f"called with {_CALLED[str(declared['form'])]}, {_where(declared)}, " if is_reward else ""
    print(f"\n{called}deadline {described.timeout_s:g} s\n")
    if described.options_docstring:
        print(described.options_docstring + "\n")
    for option in described.options:
        print(_option_lines(option))
    parameters = declared.get("parameters")
    if isinstance(parameters, dict):
        print(f"the model gives: {json.dumps(parameters['properties'], ensure_ascii=False)}")
    component = re.sub(r"\W", "_", described.name)
    weight = ", weight: 1.0" if is_reward else ""
    given = ", options: {...}" if described.options else ""
    line = f'{{use: "{use}"{weight}{given}}}'
    print(_IN_A_CONFIG[described.kind].format(component=component, line=line))


def _where(declared: "Mapping[str, object]") -> str:
    if declared["is_async"]:
        return "on the event loop"
    return "in a worker process" if declared["isolate"] else "in the trainer's process"


def _option_lines(option: "Setting") -> str:
    """An option with what it takes, and below that what it is."""
    default = "required" if option.is_required else f"default {option.default}" if option.default else ""
    says = textwrap.indent(textwrap.fill(option.description, 74), " " * 6)
    return f"  {option.name}: {', '.join(filter(None, (option.values, default)))}\n{says}".rstrip()
