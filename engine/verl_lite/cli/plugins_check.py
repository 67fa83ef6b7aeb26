"""`verl-lite plugins check`: does a reward keep the contract? A gate for a plugin's CI."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import AsJson, PluginKind

if TYPE_CHECKING:
    from verl_lite.lab.authoring.checks import PluginReport


def check_reward(
    name: Annotated[str, typer.Argument(help="A reward's name, ./file.py:function or module:function")],
    golden: Annotated[
        Path | None,
        typer.Option(help="Golden file to check it on; default: all below the current folder"),
    ] = None,
    kind: PluginKind = "",
    as_json: AsJson = False,
) -> None:
    """Check that a reward, environment or tool keeps the contract; exit code 1 when it does not.

    Of a reward: golden scores, determinism, order and batch size, deadline, pickling, purity, odd input,
    documentation.

    Example: verl-lite plugins check ./my_rewards.py:brevity
    """
    from verl_lite.cli.terminal import print_json
    from verl_lite.lab.authoring.check_environment import check_environment, check_tool
    from verl_lite.lab.authoring.checks import check_plugin
    from verl_lite.lab.authoring.kinds import other_kind
    from verl_lite.plugins import find_rewards

    catalog = find_rewards()
    other = other_kind(name, kind, catalog)
    if other is None:
        report = check_plugin(name, golden=golden, catalog=catalog)
    elif other.kind == "environment":
        report = check_environment(name, other, catalog)
    else:
        report = check_tool(name, other, catalog)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
    if report.failed:
        raise typer.Exit(1)


def _print(report: "PluginReport") -> None:
    from verl_lite.cli.terminal import print_rows

    source = ", ".join(report.golden_files) or "built-in samples"
    print(f"{report.reward} ({report.distribution}) on {report.num_rollouts} rollouts of {source}\n")
    print_rows([[f"{one.level:>4}", one.check, one.message] for one in report.findings])
    print("\nfailed" if report.failed else "\npassed")
