"""`verl-lite plugins`: the rewards of this environment, and the state of every plugin."""

import dataclasses
import shutil
import textwrap
from collections.abc import Iterable, Sequence
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
        print(_as_text(catalog))


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


def _as_text(catalog: "RewardCatalog") -> str:
    rows = [
        (definition.name, definition.form, definition.distribution, " ".join(definition.summary.split()))
        for definition in catalog.rewards.values()
    ]
    lines = _table(("reward", "form", "from", "what it is"), rows)
    for kind, definitions in (("environment", catalog.environments), ("tool", catalog.tools)):
        others = [
            (found.name, found.distribution, " ".join(found.summary.split()))
            for found in definitions.values()
        ]
        if others:
            lines += ["", *_table((kind, "from", "what it is"), others)]
    for name, owners in catalog.clashes.items():
        lines += ["", f"unusable: {name} is registered by {' and '.join(owners)}"]
    lines += [""] + [_plugin_line(plugin) for plugin in catalog.plugins if not plugin.is_ok]
    num_ok = sum(plugin.is_ok for plugin in catalog.plugins)
    counts = f"{len(rows)} rewards, {len(catalog.environments)} environments, {len(catalog.tools)} tools"
    lines.append(f"{counts}; {num_ok} of {len(catalog.plugins)} plugins loaded")
    return "\n".join(lines)


def _plugin_line(plugin: "PluginInfo") -> str:
    where = f"{plugin.distribution} {plugin.version}".strip()
    return f"{plugin.name} ({where}): {plugin.status}: {plugin.message}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Aligned columns, the last one wrapped to the width of the terminal."""
    rows = [head, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    indent = sum(widths) + 2 * len(widths)
    room = max(shutil.get_terminal_size((110, 24)).columns - indent, 30)
    lines = []
    for row in rows:
        first, *rest = textwrap.wrap(row[-1], room) or [""]
        cells = "".join(cell.ljust(width + 2) for cell, width in zip(row, widths, strict=False))
        lines += [(cells + first).rstrip(), *(" " * indent + line for line in rest)]
    return lines
