"""`verl-lite check`: does a reward do what it claims? A gate for CI."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import (
    AsJson,
    Format,
    Map,
    NoPlugins,
    Primary,
    RewardsFile,
    Rollouts,
    Workers,
    scoring_options,
)

if TYPE_CHECKING:
    from verl_lite.lab.check import CheckReport

Label = Annotated[str | None, typer.Option(help="Column that says whether a completion is correct")]
By = Annotated[list[str] | None, typer.Option(help="Columns to slice the agreement by")]


def check(
    rollouts: Rollouts,
    config: RewardsFile,
    label: Label = None,
    by: By = None,
    primary: Primary = None,
    num_probes: Annotated[int, typer.Option(min=1, help="Rollouts that the probes score")] = 400,
    max_examples: Annotated[int, typer.Option(min=0, help="Disagreements shown")] = 5,
    format: Format = "auto",
    map: Map = None,
    workers: Workers = None,
    no_plugins: NoPlugins = False,
    as_json: AsJson = False,
) -> None:
    """Check rewards on saved rollouts; exit code 1 when a check fails.

    Determinism, dead and saturated components, variance within groups, agreement with labels, and the
    scores of references, empty answers, swapped references and answers that are not computed.

    Example: verl-lite check rollouts.jsonl -c rewards.yaml --label is_correct
    """
    from verl_lite.cli.terminal import print_json
    from verl_lite.lab.check import CheckOptions, check_file
    from verl_lite.plugins import load_rewards_config

    options = CheckOptions(label=label, primary=primary, num_probes=num_probes)
    report = check_file(
        rollouts,
        load_rewards_config(config),
        check=replace(options, by=tuple(by)) if by else options,
        scoring=scoring_options(workers=workers, no_plugins=no_plugins, format=format, renames=map),
    )
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report, max_examples)
    if report.failed:
        raise typer.Exit(1)


def _print_report(report: "CheckReport", max_examples: int) -> None:
    from verl_lite.cli.terminal import excerpt, print_rows

    print(f"{report.num_rows:,} rollouts in {report.num_groups:,} groups\n")
    for finding in report.findings:
        print_rows([[f"{finding.level:>4}", f"{finding.check}: {finding.message}"]])
        for row in list(finding.numbers.get("disagreements", []))[:max_examples]:
            said = "accepted" if row.score >= 0.5 else "rejected"
            print(
                f"        {row.id}: {said}, label {row.label}; reference {excerpt(row.reference or '-', 60)}"
            )
            print(f"          {row.reason or 'no reason given'}")
            print(f"          {excerpt(row.completion, 100)}")
    print("\nfailed" if report.failed else "\npassed")
