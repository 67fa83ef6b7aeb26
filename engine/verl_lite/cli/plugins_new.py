"""`verl-lite plugins new`: a plugin package that passes its own tests."""

from pathlib import Path
from typing import Annotated

import typer


def new_plugin(
    name: Annotated[str, typer.Argument(help="Its name, such as cites_sources")],
    environment: Annotated[
        bool, typer.Option("--environment", help="An environment of several turns instead of a reward")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Where to write it; default: ./verl-lite-NAME"),
    ] = None,
) -> None:
    """Start a package with a new reward or environment: code, options, tests, golden rollouts, CI.

    Example: verl-lite plugins new cites_sources
    """
    from verl_lite.errors import ConfigError
    from verl_lite.lab.authoring.template import PluginNames, write_plugin
    from verl_lite.plugins import find_rewards

    catalog = find_rewards()
    known = (catalog.environments.get(name) if environment else None) or catalog.rewards.get(name)
    if known is not None:
        article = "an" if known.kind == "environment" else "a"
        raise ConfigError(
            f"plugins new {name}: {known.distribution} already has {article} {known.kind} of that name: "
            "choose another"
        )
    folder = folder or Path(PluginNames(name).distribution)
    for path in write_plugin(name, folder, "environment" if environment else "reward"):
        print(path)
    print(f"\nNow: cd {folder} && python -m pip install -e '.[dev]' && python -m pytest")
