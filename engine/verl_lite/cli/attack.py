"""`verl-lite attack`: hostile answers and programs, and the rewards they earn."""

from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import (
    AsJson,
    Format,
    Map,
    NoPlugins,
    Primary,
    RewardsFile,
    Workers,
    scoring_options,
)

if TYPE_CHECKING:
    from verl_lite.lab.attack import AttackReport

AttackedRows = Annotated[
    list[str] | None,
    typer.Argument(help="Rows to attack: files, folders, ...; default: a few built-in ones"),
]
Families = Annotated[list[str] | None, typer.Option(help="Only attacks of this family")]
OwnAttacks = Annotated[
    list[str] | None,
    typer.Option(help="Attacks of your own, in the place of ours: rollouts with the column `why`"),
]
NumRows = Annotated[int, typer.Option(min=1, help="Prompts to attack")]
MaxRate = Annotated[float, typer.Option(min=0, max=1, help="Exit with 1 above this exploit rate")]


def attack(
    config: RewardsFile,
    rollouts: AttackedRows = None,
    primary: Primary = None,
    family: Families = None,
    attacks: OwnAttacks = None,
    num_rows: NumRows = 20,
    max_rate: MaxRate = 0.0,
    max_examples: Annotated[int, typer.Option(min=0, help="Exploits shown")] = 10,
    format: Format = "auto",
    map: Map = None,
    workers: Workers = None,
    no_plugins: NoPlugins = False,
    as_json: AsJson = False,
) -> None:
    """Attack the rewards with answers that deserve no reward; exit code 1 when too many get one.

    Example: verl-lite attack -c rewards.yaml rollouts.jsonl
    """
    from verl_lite.cli.terminal import print_json
    from verl_lite.lab.attack import attack_rewards
    from verl_lite.plugins import load_rewards_config

    if attacks and (rollouts or family):
        raise typer.BadParameter("--attacks are rows of their own: leave out the rollouts and --family")
    report = attack_rewards(
        load_rewards_config(config),
        rollouts or None,
        primary=primary,
        num_rows=num_rows,
        families=family or (),
        attacks=attacks or None,
        scoring=scoring_options(workers=workers, no_plugins=no_plugins, format=format, renames=map),
    )
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report, max_examples)
    if report.exploit_rate > max_rate:
        raise typer.Exit(1)


def _print_report(report: "AttackReport", max_examples: int) -> None:
    from verl_lite.cli.terminal import excerpt, number, print_table

    components = list(dict.fromkeys(name for tally in report.families.values() for name in tally.accepted))
    rows = [
        [
            name,
            f"{tally.num_attacks:,}",
            *(f"{tally.accepted.get(component, 0):,}" for component in components),
            f"{sum(tally.failures.values()):,}",
            number(tally.sum_reward / tally.num_rewards if tally.num_rewards else None),
        ]
        for name, tally in report.families.items()
    ]
    columns = ["family", "attacks", *(f"{name} accepts" for name in components), "failed", "mean reward"]
    print_table("attacks", columns, rows)
    for exploit in report.exploits[:max_examples]:
        print(f"\n{exploit.attack} ({exploit.why}): {report.primary} gave {number(exploit.value)}")
        print(f"  reference: {excerpt(exploit.reference or '-')}")
        print(f"  completion: {excerpt(exploit.completion)}")
        print(f"  reason: {exploit.reason or '-'}")
    print(
        f"\nexploit rate of {report.primary}: {report.exploit_rate:.2%} "
        f"({len(report.exploits):,} of {report.num_attacks:,} attacks on {report.num_rows:,} prompts)"
    )
