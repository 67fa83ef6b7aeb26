"""`verl-lite report`: rollouts or runs as one HTML file, to read offline."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from verl_lite.cli.options import Cache, Format, Map, NoCache, NoPlugins, Overwrite, Workers, scoring_options


def report(
    sources: Annotated[
        list[str],
        typer.Argument(help="Rollouts (files, folders, ...) or run folders; more runs add their curves"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file")] = Path("report.html"),
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Score the rollouts with these rewards first")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Earlier scores of the same rollouts: show what changed")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column that marks correct completions")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder with tokenizer.json, to show tokens; default: the run's")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page")] = "",
    max_rollouts: Annotated[int, typer.Option(min=1, help="Rollouts to include")] = 50_000,
    overwrite: Overwrite = False,
    format: Format = "auto",
    map: Map = None,
    workers: Workers = None,
    no_plugins: NoPlugins = False,
    cache: Cache = None,
    no_cache: NoCache = False,
) -> None:
    """Write one self-contained HTML file: a rollout browser, distributions and curves.

    Example: verl-lite report runs/quickstart -o report.html
    """
    from verl_lite.cli.terminal import ending_on_sigterm
    from verl_lite.lab.outputs import check_output
    from verl_lite.lab.report import ReportOptions, collect, shown_rollouts, write_report
    from verl_lite.lab.scoring import score_file
    from verl_lite.plugins import load_rewards_config

    check_output(output, inputs=sources, overwrite=overwrite, suffixes=())
    scoring = scoring_options(
        workers=workers, no_plugins=no_plugins, format=format, renames=map, cache=cache, no_cache=no_cache
    )
    options = ReportOptions(
        label=label,
        title=title or Path(sources[0]).stem,
        format=format,
        renames=scoring.renames,
        max_rollouts=max_rollouts,
        against=against,
        tokenizer=tokenizer,
    )
    with ending_on_sigterm(), tempfile.TemporaryDirectory() as folder:
        rollouts = shown_rollouts(sources)
        if config is not None:
            scored = Path(folder) / "scored.parquet"
            score_file(rollouts, load_rewards_config(config), output=scored, options=scoring)
            rollouts = [scored]
            options = replace(options, format="auto", renames={})  # our own records
        data = collect(sources, options, rollouts=rollouts)
    write_report(data, output)
    size_mb = output.stat().st_size / 1e6
    print(f"{output}: {data['summary']['num_shown']:,} rollouts, {size_mb:.1f} MB; open it in a browser")
