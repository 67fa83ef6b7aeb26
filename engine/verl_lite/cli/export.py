"""`verl-lite export`: a checkpoint's policy as one model folder."""

from pathlib import Path
from typing import Annotated

import typer

from verl_lite.cli.start import calm_threads


def export(
    checkpoint: Annotated[Path, typer.Argument(help="runs/<name>/checkpoints/step_<n>")],
    folder: Annotated[Path, typer.Argument(help="Folder to write the model to; must not exist")],
) -> None:
    """Write a checkpoint's policy, sharded or not, as one Hugging Face folder.

    Example: verl-lite export runs/quickstart/checkpoints/step_000040 my-model
    """
    calm_threads()
    from verl_lite.engine.tools import export_policy
    from verl_lite.plugins.progress import stage

    with stage("exporting"):
        export_policy(checkpoint, folder)
    typer.echo(f"the model is in {folder}/")
