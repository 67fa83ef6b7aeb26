"""`verl-lite plugins`: the rewards of this environment, and the state of every plugin."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import NoPlugins
from verl_lite.cli.plugins_check import check_reward
from verl_lite.cli.plugins_new import new_plugin
from verl_lite.cli.plugins_show import show_reward

if TYPE_CHECKING:
    from verl_lite.plugins import PluginInfo, RewardCatalog

plugins_app = typer.Typer(no_args_is_help=True, help="The rewards of this environment and their plugins.")


plugins_app.command("show")(show_reward)
plugins_app.command("new")(new_plugin)
plugins_app.command("check")(check_reward)


@plugins_app.command("list")
def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table")] = False,
    no_plugins: NoPlugins = False,
) -> None:
    """List all rewards, environments and tools, and every plugin that failed to load, with the reason.

    Example: verl-lite plugins list --json
    """
    from verl_lite.plugins import find_rewards

    catalog = find_rewards(load_plugins=not no_plugins)
    if as_json:
        from verl_lite.cli.terminal import print_json

        print_json(_as_data(catalog))
    else:
        _print(catalog)


def _as_data(catalog: "RewardCatalog") -> dict[str, object]:
    called = ("form", "isolate", "version")
    return {
        "rewards": [_facts(found, *called) for found in catalog.rewards.values()],
        "environments": [_facts(found) for found in catalog.environments.values()],
        "tools": [_facts(found) for found in catalog.tools.values()],
        "plugins": [
            {**dataclasses.asdict(plugin), "content_hash": plugin.content_hash()}
            for plugin in catalog.plugins
        ],
        "clashes": dict(catalog.clashes),
    }


def _facts(definition: object, *more: str) -> dict[str, object]:
    names = ("name", *more, "timeout_s", "distribution", "summary")
    return {name: getattr(definition, name) for name in names}


def _print(catalog: "RewardCatalog") -> None:
    from verl_lite.cli.terminal import print_rows

    found = {"reward": catalog.rewards, "environment": catalog.environments, "tool": catalog.tools}
    for kind, definitions in found.items():
        form = ["form"] if kind == "reward" else []
        names = ["name", *form, "distribution", "summary"]
        rows = [[" ".join(str(getattr(one, name)).split()) for name in names] for one in definitions.values()]
        if rows:
            print_rows([[kind, *form, "from", "what it is"], *rows])
            print()
    for name, owners in catalog.clashes.items():
        print(f"unusable: {name} is registered by {' and '.join(owners)}\n")
    for plugin in catalog.plugins:
        if not plugin.is_ok:
            print(_plugin_line(plugin))
    counts = ", ".join(f"{len(some)} {kind}{'s' * (len(some) != 1)}" for kind, some in found.items())
    num_ok = sum(plugin.is_ok for plugin in catalog.plugins)
    print(f"{counts}; {num_ok} of {len(catalog.plugins)} plugins loaded")


def _plugin_line(plugin: "PluginInfo") -> str:
    where = f"{plugin.distribution} {plugin.version}".strip()
    return f"{plugin.name} ({where}): {plugin.status}: {plugin.message}"
