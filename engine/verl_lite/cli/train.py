"""`verl-lite train`, `sft`, `eval` and `config`: thin fronts of the engine."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import AsJson, DebugInline

if TYPE_CHECKING:
    from verl_lite.engine.config import TrainConfig

__all__ = ["config_app", "evaluate", "sft", "train"]

ConfigFile = Annotated[Path, typer.Argument(help="The run's YAML file", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.path=value, over what the file says", show_default=False)
]
RunDir = Annotated[
    Path | None, typer.Option(help="The run's folder; runs/<name>, numbered when taken, if left out")
]
INTERRUPTED = 130

config_app = typer.Typer(no_args_is_help=True, help="Look at training configs.")


def train(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in its folder")] = False,
    debug_inline: DebugInline = False,
) -> None:
    """Train: SFT warm-up if configured, then RL on the rewards of the config.

    Example: verl-lite train examples/quickstart.yaml steps=60 seed=1
    """
    checked = _load(config, overrides)
    from verl_lite.engine.run import train as run

    result = run(checked, run_dir=run_dir, resume=resume, debug_inline=debug_inline)
    if result.stopped:
        raise typer.Exit(INTERRUPTED)


def sft(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    debug_inline: DebugInline = False,
) -> None:
    """Run the supervised warm-up alone; the model lands in <run>/model.

    The rows' masks are checked first: faults are shown decoded and end with exit code 2.

    Example: verl-lite sft examples/quickstart.yaml sft.steps=200
    """
    checked = _load(config, overrides)
    from verl_lite.engine.run import train_only_sft

    result = train_only_sft(checked, run_dir=run_dir, debug_inline=debug_inline)
    if result.stopped:
        raise typer.Exit(INTERRUPTED)
    typer.echo(f"the model is in {result.run_dir / 'model'}/")


def evaluate(
    config: ConfigFile,
    overrides: Overrides = None,
    model: Annotated[
        str | None, typer.Option(help="A model folder or hub id; model.path if left out")
    ] = None,
    debug_inline: DebugInline = False,
    as_json: AsJson = False,
) -> None:
    """Measure held-out greedy accuracy through the rewards of the config.

    Example: verl-lite eval runs/quickstart/config.yaml --model runs/quickstart/model
    """
    from verl_lite.errors import ConfigError

    checked = _load(config, overrides)
    path = model or checked.model.path
    if path is None:
        raise ConfigError("eval: name the model to measure with --model")
    from verl_lite.engine.run import evaluate_model

    metrics = evaluate_model(checked, path, debug_inline=debug_inline).metrics
    if as_json:
        typer.echo(json.dumps(metrics))
        return
    for name, value in metrics.items():
        typer.echo(f"{name.removeprefix('evaluation/').replace('_', ' '):<24} {value:.4f}")


@config_app.command("show")
def show(config: ConfigFile, overrides: Overrides = None) -> None:
    """Print the whole config, defaults and overrides filled in.

    Example: verl-lite config show examples/quickstart.yaml seed=1
    """
    import yaml

    typer.echo(
        yaml.safe_dump(_load(config, overrides).model_dump(mode="json"), sort_keys=False),
        nl=False,
    )


@config_app.command("check")
def check(config: ConfigFile, overrides: Overrides = None) -> None:
    """Check a config, its rewards, data and tokenizer, without loading the model.

    Example: verl-lite config check examples/gsm8k_grpo.yaml
    """
    checked = _load(config, overrides)
    from verl_lite.engine.preparation import prepare_run

    prepared = prepare_run(checked)
    typer.echo(
        f"{config}: fine; {len(prepared.train_prompts)} training prompts, "
        f"{len(prepared.held_out_prompts)} held out, "
        f"{prepared.sft.num_examples if prepared.sft else 0} SFT examples"
    )


@config_app.command("schema")
def schema() -> None:
    """Print the JSON Schema that editors complete and check configs with.

    Example: verl-lite config schema > verl-lite.schema.json
    """
    from verl_lite.engine.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def _load(config: Path, overrides: list[str] | None) -> "TrainConfig":
    # Before torch loads its OpenMP, which reads it once: idle threads sleep instead of spinning. Where
    # anything else runs on the cores (reward workers do), spinning makes every small matrix product wait.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from verl_lite.engine.config import TrainConfig
    from verl_lite.plugins.config_file import load_config

    return load_config(TrainConfig, config, overrides or [])
