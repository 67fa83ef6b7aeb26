"""Options that several commands share, defined once."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from verl_lite.lab.scoring import ScoringOptions

ConfigFile = Annotated[Path, typer.Argument(help="The run's YAML file")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key.path=value: override settings in the file"),
]
RunDir = Annotated[
    Path | None, typer.Option(help="The run's folder; default: runs/<name>, with a number if that exists")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in its folder")]


class Show(StrEnum):
    AUTO = "auto"
    QUIET = "quiet"
    JSON = "json"


ShowOption = Annotated[
    Show,
    typer.Option(help="auto: a panel, or lines if piped; quiet: no line per step; json: one object per line"),
]
Rollouts = Annotated[
    list[str],
    typer.Argument(help="Rollouts: files, folders, globs, run folders, URLs, - for standard input"),
]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map", help="NEW=OLD: a column by another name, such as reference=reward_model.ground_truth"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists")]
RewardsFile = Annotated[Path, typer.Option("--config", "-c", help="YAML file with the rewards")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: one per core")]
DebugInline = Annotated[
    bool, typer.Option("--debug-inline", help="Run rewards in this process, so that breakpoints hit")
]
Format = Annotated[
    str,
    typer.Option(help="Who wrote the rollouts (docs/importing.md has the formats); auto: see the first row"),
]
Primary = Annotated[
    str | None, typer.Option(help="Component that decides what is correct; default: the heaviest")
]
PluginKind = Annotated[
    str,
    typer.Option("--kind", help="reward, environment or tool, where a name is several"),
]
NoPlugins = Annotated[bool, typer.Option("--no-plugins", help="Load only the built-in rewards")]
Cache = Annotated[
    Path | None,
    typer.Option(help="File for cached scores; default: one in your cache folder"),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor write cached scores")]


def scoring_options(
    *,
    workers: int | None,
    no_plugins: bool,
    format: str = "auto",
    renames: list[str] | None = None,
    debug_inline: bool = False,
    cache: Path | None = None,
    no_cache: bool = True,
) -> "ScoringOptions":
    """A command's scoring options. With `debug_inline` nothing is cached, so that breakpoints hit."""
    from verl_lite.lab.cache import default_cache_path
    from verl_lite.lab.reading.mapping import parse_map
    from verl_lite.lab.scoring import ScoringOptions

    use_cache = not no_cache and not debug_inline
    return ScoringOptions(
        format=format,
        renames=parse_map(renames or ()),
        workers=workers,
        debug_inline=debug_inline,
        load_plugins=not no_plugins,
        cache=(cache or default_cache_path()) if use_cache else None,
    )
