"""The Typer application: one file per group of commands. User errors end with exit code 2."""

import codecs
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.metadata import requires, version
from typing import TYPE_CHECKING, Annotated

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
from verl_lite.plugins.progress import watched_by

if TYPE_CHECKING:
    from typer._click.exceptions import UsageError
else:
    UsageError = typer.BadParameter.__mro__[1]  # older releases of typer take click's

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
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


# The groups of `verl-lite --help`, each with an example; the order is that of a project.
REWARDS = "Rewards    verl-lite check rollouts.jsonl -c rewards.yaml"
TRAIN = "Train    verl-lite train examples/quickstart.yaml"
DATA = "Data    verl-lite data check examples/quickstart.yaml"
OPERATE = "Operate    verl-lite doctor"
GROUPS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    REWARDS: {
        "score": score,
        "check": check,
        "diff": diff,
        "attack": attack,
        "report": report,
        "plugins": plugins_app,
        "rewards": rewards_app,
    },
    TRAIN: {
        "train": train,
        "sft": sft,
        "dpo": dpo,
        "reward-model": reward_model,
        "eval": evaluate,
        "rollout": rollout,
        "diagnose": diagnose,
        "pipeline": pipeline,
    },
    DATA: {"data": data_app, "preferences": preferences_app, "model": model_app},
    OPERATE: {"config": config_app, "doctor": doctor, "export": export, "sandbox": sandbox_app},
}


def _add_commands() -> None:
    for panel, commands in GROUPS.items():
        for name, command in commands.items():
            if isinstance(command, typer.Typer):
                app.add_typer(command, name=name, rich_help_panel=panel)
            else:
                app.command(name, rich_help_panel=panel)(command)


_add_commands()


def main() -> None:
    """Run the command. What the user got wrong is one message and an exit code, without a traceback."""
    codecs.register_error("json escapes", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="json escapes")
    try:
        with _watched():
            sys.exit(app(prog_name="verl-lite", standalone_mode=False) or 0)
    except UsageError as error:
        message = error.format_message()
        if not message:  # the help was asked for by giving nothing, and is printed
            sys.exit(2)
        sys.exit(_report(f"{message.removesuffix('.')}{_where_help_is(error)}", 2))
    except (ConfigError, DataError, PluginError) as error:
        sys.exit(_report(error, 2))
    except VerlLiteError as error:
        sys.exit(_report(error, 1))
    except ModuleNotFoundError as error:
        if not (extra := _extra_with(error.name or "")):
            raise
        sys.exit(
            _report(f"this needs {error.name}, which is not installed: pip install 'verl-lite[{extra}]'", 2)
        )
    except typer.Abort:
        sys.exit(130)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What a stream's encoding lacks, as JSON writes it: what --json prints stays JSON everywhere."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _extra_with(package: str) -> str | None:
    """The smallest extra of verl-lite that installs `package`."""
    lines = [line for line in requires("verl-lite") or () if "extra ==" in line]
    extras = [line.split("extra == ")[1].strip("'\"") for line in lines]
    having = [extra for line, extra in zip(lines, extras, strict=True) if re.match(rf"{package}[^\w-]", line)]
    return min(having, key=extras.count, default=None)


@contextmanager
def _watched() -> Iterator[None]:
    if not sys.stderr.isatty():
        yield
        return
    from verl_lite.cli.terminal import Bars

    with closing(Bars()) as bars, watched_by(bars):
        yield


def _report(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _where_help_is(error: UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "verl-lite"
    return f" (see `{path} --help`)"
