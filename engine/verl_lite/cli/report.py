"""`verl-lite report`: rollouts or runs as one HTML file, to read offline."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import Cache, Format, Map, NoCache, NoPlugins, Overwrite, Workers, scoring_options

if TYPE_CHECKING:
    from verl_lite.lab.report import ReportData, ReportOptions
    from verl_lite.lab.scoring import ScoringOptions

Sources = Annotated[
    list[str],
    typer.Argument(help="Rollouts (files, folders, ...) or run folders; more runs add their curves"),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="The HTML file")]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Score the rollouts with these rewards first")
]
Against = Annotated[str | None, typer.Option(help="Earlier scores of the same rollouts: show what changed")]
Label = Annotated[str | None, typer.Option(help="Column that marks correct completions")]
TokenizerFolder = Annotated[
    Path | None, typer.Option(help="Folder with tokenizer.json, to show tokens; default: the run's")
]
Title = Annotated[str, typer.Option(help="Title of the page")]
MaxRollouts = Annotated[int, typer.Option(min=1, help="Rollouts to include")]


def report(
    sources: Sources,
    output: Output = Path("report.html"),
    config: Config = None,
    against: Against = None,
    label: Label = None,
    tokenizer: TokenizerFolder = None,
    title: Title = "",
    max_rollouts: MaxRollouts = 50_000,
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
    from verl_lite.lab.report import ReportOptions

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
    with ending_on_sigterm():
        _write(_collected(sources, config, options, scoring), output)


def _write(data: "ReportData", output: Path) -> None:
    from verl_lite.lab.report import write_report

    write_report(data, output)
    size_mb = output.stat().st_size / 1e6
    print(f"{output}: {data['summary']['num_shown']:,} rollouts, {size_mb:.1f} MB; open it in a browser")


def _collected(
    sources: list[str], config: Path | None, options: "ReportOptions", scoring: "ScoringOptions"
) -> "ReportData":
    """What the page shows of the rollouts, scored with the rewards of `config` if there is one."""
    from verl_lite.lab.report import collect, shown_rollouts
    from verl_lite.lab.scoring import score_file
    from verl_lite.plugins import load_rewards_config

    rollouts = shown_rollouts(sources)
    if config is None:
        return collect(sources, options, rollouts=rollouts)
    with tempfile.TemporaryDirectory() as folder:
        scored = Path(folder) / "scored.parquet"
        score_file(rollouts, load_rewards_config(config), output=scored, options=scoring)
        options = replace(options, format="auto", renames={})  # our own records
        return collect(sources, options, rollouts=[scored])
