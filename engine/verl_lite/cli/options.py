"""Options that several commands share, spelled and explained once."""

from pathlib import Path
from typing import Annotated

import typer

Rollouts = Annotated[Path, typer.Argument(help="Rollouts: .parquet or .jsonl", show_default=False)]
RewardsFile = Annotated[
    Path, typer.Option("--config", "-c", help="YAML file with the rewards", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON for machines")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes; one a core if left out", show_default=False)
]
DebugInline = Annotated[
    bool, typer.Option("--debug-inline", help="Run rewards in this process, so that breakpoints hit")
]
NoPlugins = Annotated[bool, typer.Option("--no-plugins", help="Leave installed plugins out")]
