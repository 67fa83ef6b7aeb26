"""`verl-lite train`, `sft` and `config`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import (
    AsJson,
    ConfigFile,
    DebugInline,
    Overrides,
    Resume,
    RunDir,
    Show,
    ShowOption,
)
from verl_lite.cli.start import INTERRUPTED, load_run_config
from verl_lite.errors import ConfigError

if TYPE_CHECKING:
    from verl_lite.engine.config import TrainConfig

AutoResume = Annotated[
    bool,
    typer.Option("--auto-resume", help="Like --resume if --run-dir already holds the run"),
]

config_app = typer.Typer(no_args_is_help=True, help="Inspect training configs.")


def train(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    resume: Resume = False,
    auto_resume: AutoResume = False,
    debug_inline: DebugInline = False,
    show: ShowOption = Show.AUTO,
) -> None:
    """Train: SFT warm-up if configured, then RL on the rewards of the config.

    Example: verl-lite train examples/quickstart.yaml steps=60 seed=1
    """
    checked = _load(config, overrides)
    if auto_resume:
        if run_dir is None:
            raise ConfigError("--auto-resume needs --run-dir: name the run's folder")
        resume = resume or (run_dir / "config.yaml").is_file()
    if _follows(checked):
        return
    from verl_lite.engine.training import train as run

    result = run(checked, run_dir=run_dir, resume=resume, debug_inline=debug_inline, show=show.value)
    if result.stopped:
        raise typer.Exit(INTERRUPTED)


def sft(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    resume: Resume = False,
    debug_inline: DebugInline = False,
    show: ShowOption = Show.AUTO,
) -> None:
    """Run only the supervised warm-up; the model is saved in <run>/model.

    The loss masks are checked first: faults are shown decoded, and the exit code is 2.

    Example: verl-lite sft examples/quickstart.yaml sft.steps=200
    """
    checked = _load(config, overrides)
    from verl_lite.engine.training import train_only_sft

    result = train_only_sft(
        checked, run_dir=run_dir, resume=resume, debug_inline=debug_inline, show=show.value
    )
    if result.stopped:
        raise typer.Exit(INTERRUPTED)


@config_app.command("show")
def show(
    config: ConfigFile,
    overrides: Overrides = None,
    explained: Annotated[bool, typer.Option("--explain", help="Say above each setting what it does")] = False,
) -> None:
    """Print the config with all defaults and overrides.

    Example: verl-lite config show examples/quickstart.yaml seed=1 --explain
    """
    import yaml

    if explained:
        from verl_lite.plugins.settings import explain

        for line in explain(_load(config, overrides)):
            typer.echo(line)
        return
    typer.echo(yaml.safe_dump(_load(config, overrides).model_dump(mode="json"), sort_keys=False), nl=False)


@config_app.command("check")
def check(
    config: ConfigFile,
    overrides: Overrides = None,
    gpu_gib: Annotated[
        float | None,
        typer.Option(help="Plan for GPUs with this much memory; default: this machine's", min=1),
    ] = None,
) -> None:
    """Check a config with its rewards, data and tokenizer, and plan its memory, without loading the model.

    Example: verl-lite config check examples/gsm8k_grpo.yaml --gpu-gib 80
    """
    checked = _load(config, overrides)
    from verl_lite.engine.memory_plan import Gpu, local_gpu, plan_memory
    from verl_lite.engine.model import shape_of
    from verl_lite.engine.model.machine import local_ram
    from verl_lite.engine.preparation import prepare_run

    asked = None if gpu_gib is None else Gpu(name="GPU", memory_bytes=int(gpu_gib * 2**30))
    only_sft = checked.sft.is_on and not checked.steps
    prepared = prepare_run(checked, only_sft=only_sft, here=asked is None)
    gpu, ram = asked or local_gpu(), local_ram()
    plan = plan_memory(checked, shape_of(checked.model), gpu, ram=ram)
    for line in [*plan.lines(), *([] if gpu else plan.note_on_free(ram))]:
        typer.echo(line)
    for note in prepared.notes:
        typer.echo(note)
    typer.echo(
        f"{config}: fine; {len(prepared.train_prompts)} training prompts, "
        f"{len(prepared.held_out_prompts)} held out, "
        f"{prepared.sft.num_examples if prepared.sft else 0} SFT examples"
    )


@config_app.command("diff")
def diff_runs(
    first: Annotated[Path, typer.Argument(help="A run folder or a config file")],
    second: Annotated[Path, typer.Argument(help="The other one")],
    as_json: AsJson = False,
) -> None:
    """Show how two runs differ in config and environment.

    Example: verl-lite config diff runs/quickstart runs/quickstart-2
    """
    from dataclasses import asdict

    from verl_lite.cli.terminal import print_json, print_table
    from verl_lite.engine.rundir import diff_runs as differences

    found = differences(first, second)
    if as_json:
        print_json([asdict(difference) for difference in found])
        return
    for where in ("config", "environment"):
        rows = [(d.key, _shown(d.first), _shown(d.second)) for d in found if d.where == where]
        if rows:
            print_table(where, ("key", str(first), str(second)), rows)
    if not found:
        typer.echo("no difference")


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


@config_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of training configs, for editors.

    Example: verl-lite config schema > verl-lite.schema.json
    """
    from verl_lite.engine.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def _follows(config: "TrainConfig") -> bool:
    """Join the processes that torchrun started, if any. Returns True in every rank but 0, after the run."""
    from verl_lite.engine.cluster import check_launch, launched_rank

    is_shared = config.rollout.sampler == "vllm" and not config.rollout.is_placed_by_ray
    check_launch(num_ranks=config.learner.num_ranks, sampler_shares_process=is_shared)
    rank = launched_rank()
    if rank is None:
        return False
    from verl_lite.engine.cluster import follow, join

    join(config.cluster)
    if rank > 0:
        follow()
    return rank > 0


def _load(config: Path, overrides: list[str] | None) -> "TrainConfig":
    from verl_lite.engine.config import TrainConfig

    return load_run_config(TrainConfig, config, overrides)
