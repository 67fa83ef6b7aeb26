"""`verl-lite rollout`: sample from a model, score the completions, write the records."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import AsJson, ConfigFile, DebugInline, Overrides
from verl_lite.cli.start import load_run_config

if TYPE_CHECKING:
    from verl_lite.engine.tools import Sampled

Out = Annotated[Path, typer.Option("--out", "-o", help="The records (.parquet or .jsonl)")]
Model = Annotated[
    str | None,
    typer.Option(help="A model folder or hub id; default: model.path"),
]
NumPrompts = Annotated[int | None, typer.Option(min=1, help="How many prompts; default: all")]
NumSamples = Annotated[
    int | None,
    typer.Option(min=1, help="Completions per prompt; default: rollout.num_samples"),
]
HeldOut = Annotated[bool, typer.Option("--held-out", help="Sample the prompts of data.held_out")]


def rollout(
    config: ConfigFile,
    out: Out,
    overrides: Overrides = None,
    model: Model = None,
    prompts: NumPrompts = None,
    samples: NumSamples = None,
    held_out: HeldOut = False,
    debug_inline: DebugInline = False,
    as_json: AsJson = False,
) -> None:
    """Sample a model on a training config's prompts; write the rollouts, scored by its rewards if any.

    The records are input for score, diff, check and report. Nothing is trained.

    Example: verl-lite rollout examples/quickstart.yaml --model runs/quickstart/model -o r.parquet
    """
    from verl_lite.cli.terminal import print_json
    from verl_lite.engine.config import TrainConfig

    checked = load_run_config(TrainConfig, config, overrides)
    from verl_lite.engine.tools import write_rollouts

    sampled = write_rollouts(
        checked,
        out,
        model=model,
        num_prompts=prompts,
        num_samples=samples,
        held_out=held_out,
        debug_inline=debug_inline,
    )
    if as_json:
        print_json({**sampled.to_json(), "out": str(out)})
        return
    _print_summary(sampled)
    print(f"records: {out}")


def _print_summary(sampled: "Sampled") -> None:
    from verl_lite.cli.terminal import number, print_table

    rows = [[f"{name}, mean", number(value)] for name, value in sampled.component_means.items()]
    if sampled.component_means:
        rows.append(["reward, mean", number(sampled.reward_mean)])
    if sampled.num_dropped:
        rows.append(["dropped", f"{sampled.num_dropped:,}"])
    rows.append(["truncated", f"{sampled.truncated:.1%}"])
    rows.append(["tokens per completion", f"{sampled.completion_tokens_mean:.1f}"])
    print(f"{sampled.model}: {sampled.num_prompts:,} prompts x {sampled.num_samples} samples")
    print_table("", ["", ""], rows)
