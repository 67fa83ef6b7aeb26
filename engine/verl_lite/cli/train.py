"""`verl-lite train`, `sft`, `eval`: thin fronts of the engine."""

from pathlib import Path
from typing import Annotated

import typer

from verl_lite.cli.app import app

__all__: list[str] = []

ConfigArgument = Annotated[Path, typer.Argument(help="The run's YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.path=value, over what the file says.", show_default=False)
]
RunDir = Annotated[
    Path | None, typer.Option(help="The run's folder. Default: runs/<name>, numbered when taken.")
]
INTERRUPTED = 130


@app.command(epilog="Example: verl-lite train examples/quickstart.yaml steps=60 seed=1")
def train(
    config: ConfigArgument,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in its folder.")] = False,
    debug_inline: Annotated[
        bool, typer.Option("--debug-inline", help="Rewards run in this process, so breakpoints hit.")
    ] = False,
) -> None:
    """Train: SFT warm-up if configured, then RL on the rewards of the config."""
    from verl_lite.engine.config import TrainConfig
    from verl_lite.plugins.config_file import load_config

    checked = load_config(TrainConfig, config, overrides or [])
    from verl_lite.engine.run import train as run

    result = run(checked, run_dir=run_dir, resume=resume, debug_inline=debug_inline)
    if result.stopped:
        raise typer.Exit(INTERRUPTED)
