"""`verl-lite diff`: what changes when the same rollouts are scored by other rewards."""

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import (
    AsJson,
    Cache,
    Format,
    Map,
    NoCache,
    NoPlugins,
    Rollouts,
    Workers,
    scoring_options,
)
from verl_lite.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from verl_lite.lab.diff import ComponentDiff, DiffReport
    from verl_lite.lab.reading import Rollouts as OpenRollouts
    from verl_lite.lab.scoring import ScoringOptions

RECORDED = "recorded"

Before = Annotated[str, typer.Option("-a", help=f"Rewards before; '{RECORDED}': the scores in the file")]
After = Annotated[str | None, typer.Option("-b", help="Rewards after; default: the same as -a")]
BeforeEnv = Annotated[Path | None, typer.Option(help="Virtual environment that scores side a")]
AfterEnv = Annotated[Path | None, typer.Option(help="Virtual environment that scores side b")]
FailOnFlips = Annotated[
    int | None, typer.Option(min=0, help="Exit with 1 when more than this many verdicts flip")
]


def diff(
    rollouts: Rollouts,
    a: Before,
    b: After = None,
    a_env: BeforeEnv = None,
    b_env: AfterEnv = None,
    fail_on_flips: FailOnFlips = None,
    max_examples: Annotated[int, typer.Option(min=0, help="Changed rows shown per component")] = 5,
    format: Format = "auto",
    map: Map = None,
    workers: Workers = None,
    no_plugins: NoPlugins = False,
    cache: Cache = None,
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Score the same rollouts twice and show what changes, including GRPO's advantages.

    Example: verl-lite diff rollouts.parquet -a old.yaml -b new.yaml --fail-on-flips 0
    """
    from verl_lite.cli.terminal import print_json
    from verl_lite.lab.diff import diff_groups
    from verl_lite.plugins.progress import counted

    if b is None and a_env is None and b_env is None:
        raise ConfigError("nothing to compare: give -b NEW.yaml, or --a-env / --b-env for two environments")
    options = scoring_options(
        workers=workers, no_plugins=no_plugins, format=format, renames=map, cache=cache, no_cache=no_cache
    )
    with tempfile.TemporaryDirectory() as folder:
        first = _scored(rollouts, a, a_env, Path(folder) / "a.parquet", options)
        second = _scored(rollouts, b or a, b_env, Path(folder) / "b.parquet", options)
        with first as old, second as new:
            before = counted(old.groups(), "comparing", total=old.num_rows, size=len)
            report = diff_groups(before, new.groups(), max_examples=max_examples)
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report, fail_on_flips)
    if fail_on_flips is not None and report.num_flips > fail_on_flips:
        raise typer.Exit(1)


def _scored(
    rollouts: list[str], rewards: str, env: Path | None, output: Path, options: "ScoringOptions"
) -> "AbstractContextManager[OpenRollouts]":
    """One side: the rollouts with its scores."""
    from verl_lite.lab.reading import open_rollouts
    from verl_lite.lab.scoring import score_file
    from verl_lite.plugins import load_rewards_config

    if rewards == RECORDED:
        return open_rollouts(rollouts, format=options.format, renames=options.renames)
    if env is not None:
        _score_elsewhere(rollouts, rewards, env, output, options)
    else:
        score_file(rollouts, load_rewards_config(rewards), output=output, options=options)
    return open_rollouts(output)


def _score_elsewhere(
    rollouts: list[str], rewards: str, env: Path, output: Path, options: "ScoringOptions"
) -> None:
    command = env / "bin" / "verl-lite"
    if not command.exists():
        raise ConfigError(
            f"{env}: no verl-lite command in bin/; expected a virtual environment with verl-lite"
        )
    arguments = ["score", *rollouts, "-c", rewards, "-o", str(output), "--json"]
    more = [] if options.load_plugins else ["--no-plugins"]
    more += [] if options.format == "auto" else ["--format", options.format]
    more += [text for new, old in options.renames.items() for text in ("--map", f"{new}={old}")]
    done = subprocess.run([command, *arguments, *more], capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"{command} ended with exit code {done.returncode}: {done.stderr.strip()}")


def _component_row(part: "ComponentDiff") -> list[str]:
    from verl_lite.cli.terminal import number, share

    flips = [f"{part.flips_up:,}", f"{part.flips_down:,}"] if part.is_verdict else ["-", "-"]
    compared = part.num_rows - sum(part.outcome_changes.values())
    mean = part.sum_delta / compared if compared else None
    outcomes = ", ".join(f"{count:,} {change}" for change, count in part.outcome_changes.items())
    return [part.name, share(part.num_changed, part.num_rows), *flips, number(mean), outcomes or "-"]


def _print_report(report: "DiffReport", max_flips: int | None) -> None:
    from verl_lite.cli.terminal import excerpt, number, print_table, share

    parts = [*report.components.values(), report.reward]
    columns = ["component", "changed", "0 to 1", "1 to 0", "mean change", "outcomes"]
    print_table("what changes", columns, [_component_row(part) for part in parts])
    grpo = report.grpo
    print_table(
        "\nwhat GRPO would see",
        ["", ""],
        [
            ["groups whose rewards change", share(grpo.groups_changed, grpo.num_groups)],
            ["groups that gain all their variance", f"{grpo.gained_all_variance:,}"],
            ["groups that lose all their variance", f"{grpo.lost_all_variance:,}"],
            ["advantages that change sign", f"{grpo.advantages_changing_sign:,}"],
            ["groups in which samples change order", f"{grpo.groups_with_rank_changes:,}"],
            ["samples newly dropped", f"{grpo.samples_newly_dropped:,}"],
            ["samples no longer dropped", f"{grpo.samples_no_longer_dropped:,}"],
            ["largest change of an advantage", number(grpo.max_advantage_change)],
        ],
    )
    for part in report.components.values():
        for example in part.examples:
            before, after = example.before, example.after
            print(f"\n{part.name}, row {example.row} ({example.id}): {number(before)} -> {number(after)}")
            print(f"  reference:  {excerpt(example.reference or '-')}")
            print(f"  completion: {excerpt(example.completion)}")
            print(f"  before: {example.reason_before or example.outcome_before}")
            print(f"  after:  {example.reason_after or example.outcome_after}")
    if max_flips is not None and report.num_flips > max_flips:
        print(f"\ngate: {report.num_flips:,} verdicts flipped, at most {max_flips:,} are allowed")
