"""`verl-lite plugins new`: a plugin package that passes its own tests."""

from pathlib import Path
from typing import Annotated

import typer


def new_plugin(
    name: Annotated[str, typer.Argument(help="The name of the reward, such as cites_sources")],
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Where to write it; default: ./verl-lite-NAME", show_default=False),
    ] = None,
) -> None:
    """Start a package with a new reward: code, options, tests, golden rollouts, CI.

    Example: verl-lite plugins new cites_sources
    """
    from verl_lite.errors import ConfigError
    from verl_lite.lab.authoring.template import PluginNames, write_plugin
    from verl_lite.plugins import find_rewards

    known = find_rewards().rewards.get(name)
    if known is not None:
        raise ConfigError(
            f"plugins new {name}: {known.distribution} already has a reward of that name: choose another"
        )
    folder = folder or Path(PluginNames(name).distribution)
    for path in write_plugin(name, folder):
        print(path)
    print(f"\nNow: cd {folder} && python -m pip install -e '.[dev]' && python -m pytest")
