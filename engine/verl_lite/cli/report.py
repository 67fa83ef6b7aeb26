"""`verl-lite report`: rollouts or runs as one HTML file, to read offline."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from verl_lite.cli.options import Cache, Format, NoCache, NoPlugins, Workers, scoring_options


def report(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Rollouts (.parquet or .jsonl) or run folders; more runs add their curves"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file")] = Path("report.html"),
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Score the rollouts with these rewards first")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Earlier scores of the same rollouts: show what changed")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column that marks correct completions")] = None,
    title: Annotated[str, typer.Option(help="Title of the page")] = "",
    max_rollouts: Annotated[int, typer.Option(min=1, help="Rollouts to include")] = 50_000,
    format: Format = "auto",
    workers: Workers = None,
    no_plugins: NoPlugins = False,
    cache: Cache = None,
    no_cache: NoCache = False,
) -> None:
    """Write one self-contained HTML file: curves, distributions and a rollout browser.

    Example: verl-lite report runs/quickstart -o report.html
    """
    from verl_lite.lab.diff import diff_records
    from verl_lite.lab.formats import OWN
    from verl_lite.lab.report import ReportOptions, collect, write_report
    from verl_lite.lab.scoring import score_file
    from verl_lite.plugins import load_rewards_config
    from verl_lite.plugins.records import read_records

    shown_as = format if config is None else OWN  # scored rollouts are records in our own format
    options = ReportOptions(
        label=label, title=title or sources[0].stem, format=shown_as, max_rollouts=max_rollouts
    )
    with tempfile.TemporaryDirectory() as folder:
        shown = list(sources)
        if config is not None:
            shown[0] = Path(folder) / f"{sources[0].stem}.parquet"
            scoring = scoring_options(
                workers=workers, no_plugins=no_plugins, format=format, cache=cache, no_cache=no_cache
            )
            score_file(sources[0], load_rewards_config(config), output=shown[0], options=scoring)
        data = collect(shown, options)
        if against is not None:
            data["diff"] = diff_records(read_records(against), read_records(shown[0])).to_json()
    write_report(data, output)
    size_mb = output.stat().st_size / 1e6
    print(f"{output}: {data['summary']['num_shown']:,} rollouts, {size_mb:.1f} MB; open it in a browser")
