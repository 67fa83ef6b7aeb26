"""`verl-lite score`: score saved rollouts, without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import (
    AsJson,
    Cache,
    DebugInline,
    Format,
    Map,
    NoCache,
    NoPlugins,
    Overwrite,
    RewardsFile,
    Rollouts,
    Workers,
    scoring_options,
)
from verl_lite.errors import ConfigError

if TYPE_CHECKING:
    from verl_lite.lab.scoring import ScoringOptions
    from verl_lite.lab.summary import ScoreSummary

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write the scored records here (.parquet or .jsonl)"),
]
Golden = Annotated[
    Path | None,
    typer.Option(help="Pin the scores in this .golden.json; if it exists, fail on a difference"),
]


def score(
    rollouts: Rollouts,
    config: RewardsFile,
    output: Output = None,
    golden: Golden = None,
    update_golden: Annotated[bool, typer.Option("--update-golden", help="Pin the scores again")] = False,
    overwrite: Overwrite = False,
    format: Format = "auto",
    map: Map = None,
    workers: Workers = None,
    debug_inline: DebugInline = False,
    no_plugins: NoPlugins = False,
    cache: Cache = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Score saved rollouts with the rewards of a config.

    Example: verl-lite score rollouts.jsonl -c rewards.yaml -o scored.parquet
    """
    options = scoring_options(
        workers=workers,
        no_plugins=no_plugins,
        format=format,
        renames=map,
        debug_inline=debug_inline,
        cache=cache,
        no_cache=no_cache,
    )
    if golden is not None:
        if len(rollouts) > 1:
            raise ConfigError("--golden pins the scores of one file of rollouts")
        _pin_or_compare(golden, config, Path(rollouts[0]), options, update=update_golden)
    else:
        _score_and_tell(rollouts, config, output, options, overwrite=overwrite, as_json=as_json)


def _score_and_tell(
    rollouts: list[str],
    config: Path,
    output: Path | None,
    options: "ScoringOptions",
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    from verl_lite.cli.terminal import ending_on_sigterm, print_json
    from verl_lite.lab.outputs import bad_rows_path
    from verl_lite.lab.scoring import score_file
    from verl_lite.plugins import load_rewards_config

    bad_rows = bad_rows_path(output, rollouts)
    with ending_on_sigterm():
        summary = score_file(
            rollouts,
            load_rewards_config(config),
            output=output,
            overwrite=overwrite,
            bad_rows=bad_rows,
            options=options,
        )
    if as_json:
        print_json(summary.to_json())
    else:
        _print_summary(summary)
        _print_what_to_do(summary, bad_rows, output)
    if summary.scored_nothing:
        raise typer.Exit(1)


def _print_what_to_do(summary: "ScoreSummary", bad_rows: Path, output: Path | None) -> None:
    if summary.silent:
        columns = ", ".join(sorted(summary.columns)) or "none"
        print(f"abstained on every row: {', '.join(summary.silent)}; the columns are: {columns}")
        print("  if what it needs has another name: --map reference=COLUMN, or `map:` in the config")
    if summary.num_bad_rows:
        print(f"{summary.num_bad_rows:,} rows could not be read: see {bad_rows}")
    if output is not None:
        print(f"scored records: {output}")
    if summary.scored_nothing:
        print(f"gate: no row has a value of: {', '.join(summary.scored_nothing)}")


def _pin_or_compare(
    golden: Path, config: Path, rollouts: Path, options: "ScoringOptions", *, update: bool
) -> None:
    from verl_lite.lab.golden import compare_golden, make_golden, write_golden

    if update or not golden.exists():
        pinned = make_golden(golden, config, rollouts, options)
        write_golden(golden, pinned)
        print(f"pinned the scores of {len(pinned.rows):,} rows in {golden}")
        return
    mismatches = compare_golden(golden, options)
    for mismatch in mismatches:
        print(mismatch)
    if mismatches:
        print(f"gate: {len(mismatches):,} rows differ from {golden}; --update-golden pins the new scores")
        raise typer.Exit(1)
    print(f"all scores equal those in {golden}")


def _print_summary(summary: "ScoreSummary") -> None:
    from verl_lite.cli.terminal import number, print_table

    rows = [
        [
            name,
            number(part.values.mean if part.values.count else None),
            number(part.values.std if part.values.count else None),
            *(f"{part.outcomes[outcome]:,}" for outcome in ("ok", "abstain", "error", "timeout")),
            number(part.latencies.quantile(0.5) * 1e3),
        ]
        for name, part in summary.components.items()
    ]
    print_table("rewards", ["component", "mean", "std", "ok", "abstain", "error", "timeout", "p50 ms"], rows)
    for name, part in summary.components.items():
        for reason in part.why:
            print(f"{name}: {reason.sentence}")
    dropped = f", {summary.num_dropped:,} dropped" if summary.num_dropped else ""
    rate = summary.num_rows / summary.wall_s
    mean = summary.reward.mean if summary.reward.count else None
    print(
        f"\n{summary.num_rows:,} rollouts in {summary.wall_s:.2f} s ({rate:,.0f}/s); "
        f"mean reward {number(mean)}{dropped}" + ("; cached from an earlier run" if summary.is_cached else "")
    )
