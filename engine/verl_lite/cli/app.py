"""The Typer application: one file per group of commands. User errors end with exit code 2."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from verl_lite.cli.attack import attack
from verl_lite.cli.check import check
from verl_lite.cli.data import data_app
from verl_lite.cli.diagnose import diagnose
from verl_lite.cli.diff import diff
from verl_lite.cli.doctor import doctor
from verl_lite.cli.evaluate import evaluate
from verl_lite.cli.export import export
from verl_lite.cli.model import model_app
from verl_lite.cli.pipeline import pipeline
from verl_lite.cli.plugins import plugins_app
from verl_lite.cli.preferences import dpo, preferences_app, reward_model
from verl_lite.cli.report import report
from verl_lite.cli.rewards import rewards_app
from verl_lite.cli.rollout import rollout
from verl_lite.cli.sandbox import sandbox_app
from verl_lite.cli.score import score
from verl_lite.cli.train import config_app, sft, train
from verl_lite.errors import ConfigError, DataError, PluginError, VerlLiteError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Write, test and trust the rewards that train language models, and train with them.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"verl-lite {version('verl-lite')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """Write, test and trust the rewards that train language models, and train with them."""


app.command()(train)
app.command()(sft)
app.command("reward-model")(reward_model)
app.command()(dpo)
app.command("eval")(evaluate)
app.command()(rollout)
app.command()(pipeline)
app.command()(diagnose)
app.command()(score)
app.command()(diff)
app.command()(check)
app.command()(attack)
app.command()(report)
app.command()(doctor)
app.command()(export)
app.add_typer(plugins_app, name="plugins")
app.add_typer(model_app, name="model")
app.add_typer(rewards_app, name="rewards")
app.add_typer(sandbox_app, name="sandbox")
app.add_typer(config_app, name="config")
app.add_typer(preferences_app, name="preferences")
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command; a VerlLiteError prints one message and sets the exit code, without a traceback."""
    try:
        app()
    except (ConfigError, DataError, PluginError) as error:
        sys.exit(_report(error, 2))
    except VerlLiteError as error:
        sys.exit(_report(error, 1))


def _report(error: VerlLiteError, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
