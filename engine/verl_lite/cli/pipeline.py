"""`verl-lite pipeline`: SFT, preferences, reward model and RL in one go."""

from pathlib import Path
from typing import Annotated

import typer

from verl_lite.cli.options import ConfigFile


def pipeline(
    config: ConfigFile,
    folder: Annotated[Path | None, typer.Option(help="Folder for the stages; default: runs/<name>")] = None,
) -> None:
    """Run the stages of a pipeline in order; after a failure, run it again to continue.

    Example: verl-lite pipeline examples/pipeline.yaml
    """
    from verl_lite.engine.tools import PipelineConfig, run_pipeline
    from verl_lite.plugins.config_file import load_config

    checked = load_config(PipelineConfig, config)
    run_pipeline(checked, folder or Path("runs") / checked.name, say=lambda text: print(text, flush=True))
