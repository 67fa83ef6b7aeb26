"""`verl-lite plugins show`: one reward, its options, and how to use it in a config."""

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import AsJson, NoPlugins

if TYPE_CHECKING:
    from verl_lite.lab.authoring.describe import OptionDescription, RewardDescription


def show_reward(
    name: Annotated[str, typer.Argument(help="A reward's name, ./file.py:function or module:function")],
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of its options")] = False,
    as_json: AsJson = False,
    no_plugins: NoPlugins = False,
) -> None:
    """Show what a reward does, its options and where it runs.

    Example: verl-lite plugins show length --schema
    """
    from verl_lite.cli.terminal import print_json
    from verl_lite.lab.authoring.describe import describe_reward
    from verl_lite.plugins import find_rewards

    described = describe_reward(find_rewards(load_plugins=not no_plugins).get(name))
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
        print(_option_line(option))
    given = ", options: {...}" if described.options else ""
    component = re.sub(r"\W", "_", described.name)
    print(f'\nrewards:\n  {component}: {{use: "{use}", weight: 1.0{given}}}')


def _option_line(option: "OptionDescription") -> str:
    default = "required" if option.is_required else f"default {option.default}"
    tail = f"  {option.description}" if option.description else ""
    return f"  {option.name}: {option.type}, {default}{tail}"
