"""Options that several commands share, spelled and explained once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from verl_lite.lab.scoring import ScoringOptions

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
Format = Annotated[
    str,
    typer.Option(
        help="Who wrote the rollouts: verl-lite, verl, trl, verifiers, openrlhf, open-instruct; "
        "auto tells it by the first row"
    ),
]
NoPlugins = Annotated[bool, typer.Option("--no-plugins", help="Leave installed plugins out")]
Cache = Annotated[
    Path | None,
    typer.Option(help="File that keeps scores; in your cache folder if left out", show_default=False),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither use nor keep scores of earlier runs")]


def scoring_options(
    *,
    workers: int | None,
    no_plugins: bool,
    format: str = "auto",
    debug_inline: bool = False,
    cache: Path | None = None,
    no_cache: bool = True,
) -> "ScoringOptions":
    """What the options of a command say about scoring. Breakpoints and caches do not go together."""
    from verl_lite.lab.cache import default_cache_path
    from verl_lite.lab.scoring import ScoringOptions

    use_cache = not no_cache and not debug_inline
    return ScoringOptions(
        format=format,
        workers=workers,
        debug_inline=debug_inline,
        load_plugins=not no_plugins,
        cache=(cache or default_cache_path()) if use_cache else None,
    )
