"""`verl-lite plugins show`: one reward, its options, and how to use it in a config."""

import json
import re
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import AsJson, NoPlugins, PluginKind

if TYPE_CHECKING:
    from verl_lite.lab.authoring.describe import EnvironmentDescription, RewardDescription
    from verl_lite.plugins.settings import Setting


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
    from verl_lite.lab.authoring.describe import describe_environment, describe_reward
    from verl_lite.lab.authoring.kinds import other_kind
    from verl_lite.plugins import find_rewards

    catalog = find_rewards(load_plugins=not no_plugins)
    other = other_kind(name, kind, catalog)
    if other is not None:
        _show_environment(describe_environment(other), name, schema=schema, as_json=as_json)
        return
    described = describe_reward(catalog.get(name))
    if schema:
        print(json.dumps(described.schema, indent=2))
    elif as_json:
        print_json(described.to_json())
    else:
        _print(described, use=name)


def _print(described: "RewardDescription", use: str) -> None:
    print(f"{described.name} ({described.distribution}), version {described.version}\n")
    print(described.docstring or "(it has no docstring)")
    called = {"rollout": "one rollout", "batch": "rollouts in batches", "group": "all samples of a prompt"}
    where = "on the event loop" if described.is_async else "in the trainer's process"
    if described.isolate and not described.is_async:
        where = "in a worker process"
    print(f"\ncalled with {called[described.form]}, {where}, deadline {described.timeout_s:g} s\n")
    if described.options_docstring:
        print(described.options_docstring + "\n")
    for option in described.options:
        print(_option_lines(option))
    given = ", options: {...}" if described.options else ""
    component = re.sub(r"\W", "_", described.name)
    print(f'\nrewards:\n  {component}: {{use: "{use}", weight: 1.0{given}}}')


def _show_environment(described: "EnvironmentDescription", use: str, *, schema: bool, as_json: bool) -> None:
    from verl_lite.cli.terminal import print_json

    if schema:
        print(json.dumps(described.schema, indent=2))
        return
    if as_json:
        print_json(described.to_json())
        return
    print(f"{described.name} ({described.distribution}), {described.kind}\n")
    print(described.docstring or "(it has no docstring)")
    print(f"\ndeadline {described.timeout_s:g} s\n")
    for option in described.options:
        print(_option_lines(option))
    if described.parameters:
        print(f"the model gives: {json.dumps(described.parameters['properties'], ensure_ascii=False)}")
    given = ", options: {...}" if described.options else ""
    line = f'{{use: "{use}"{given}}}'
    print(f"\nenvironment: {line}" if described.kind == "environment" else f"\ntools: [{line}]")


def _option_lines(option: "Setting") -> str:
    """An option with what it takes, and below that what it is."""
    default = "required" if option.is_required else f"default {option.default}" if option.default else ""
    says = textwrap.indent(textwrap.fill(option.description, 74), " " * 6)
    return f"  {option.name}: {', '.join(filter(None, (option.values, default)))}\n{says}".rstrip()
