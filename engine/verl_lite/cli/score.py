"""`verl-lite score`: what rewards give to saved rollouts, without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import AsJson, DebugInline, NoPlugins, RewardsFile, Rollouts, Workers

if TYPE_CHECKING:
    from verl_lite.lab.summary import ScoreSummary

__all__ = ["score"]


def score(
    rollouts: Rollouts,
    config: RewardsFile,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the scored records here (.parquet or .jsonl)"),
    ] = None,
    workers: Workers = None,
    debug_inline: DebugInline = False,
    no_plugins: NoPlugins = False,
    as_json: AsJson = False,
) -> None:
    """Score saved rollouts with the rewards of a config.

    Example: verl-lite score rollouts.jsonl -c rewards.yaml -o scored.parquet
    """
    from verl_lite.cli.terminal import print_json, progress
    from verl_lite.lab.scoring import ScoringOptions, score_file
    from verl_lite.plugins import load_rewards_config

    bad_rows = (output or rollouts).with_suffix(".bad.jsonl")
    with progress("scored") as on_progress:
        summary = score_file(
            rollouts,
            load_rewards_config(config),
            output=output,
            bad_rows=bad_rows,
            options=ScoringOptions(workers=workers, debug_inline=debug_inline, load_plugins=not no_plugins),
            on_progress=on_progress,
        )
    if as_json:
        print_json(summary.to_json())
        return
    _print_summary(summary)
    if summary.num_bad_rows:
        print(f"{summary.num_bad_rows:,} rows could not be read: see {bad_rows}")
    if output is not None:
        print(f"scored records: {output}")


def _print_summary(summary: "ScoreSummary") -> None:
    from verl_lite.cli.terminal import number, print_table

    rows = [
        [
            name,
            number(part.values.mean if part.values.count else None),
            number(part.values.std if part.values.count else None),
            *(f"{part.outcomes[outcome]:,}" for outcome in ("ok", "abstain", "error", "timeout")),
            f"{part.latencies.quantile(0.5) * 1e3:.3g} ms",
        ]
        for name, part in summary.components.items()
    ]
    print_table("rewards", ["component", "mean", "std", "ok", "abstain", "error", "timeout", "p50"], rows)
    dropped = f", {summary.num_dropped:,} dropped" if summary.num_dropped else ""
    rate = summary.num_rows / summary.wall_s
    print(
        f"\n{summary.num_rows:,} rollouts in {summary.wall_s:.2f} s ({rate:,.0f}/s); "
        f"mean reward {number(summary.reward.mean)}{dropped}"
    )
