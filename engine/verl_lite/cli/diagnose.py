"""`verl-lite diagnose`: is a warm-up needed before RL?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import AsJson, ConfigFile, DebugInline, Overrides
from verl_lite.cli.start import load_run_config

if TYPE_CHECKING:
    from verl_lite.engine.tools import Advice, Diagnosis


def diagnose(
    config: ConfigFile,
    overrides: Overrides = None,
    prompts: Annotated[int, typer.Option(min=1, help="How many RL prompts to sample")] = 64,
    samples: Annotated[int, typer.Option(min=2, help="Completions per prompt")] = 8,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the rollouts here (.parquet or .jsonl)"),
    ] = None,
    debug_inline: DebugInline = False,
    as_json: AsJson = False,
) -> None:
    """Sample the base model on the RL prompts, score the answers, and advise whether to run SFT first.

    Example: verl-lite diagnose examples/quickstart.yaml --prompts 100 --samples 8
    """
    from verl_lite.cli.terminal import print_json
    from verl_lite.engine.config import TrainConfig

    checked = load_run_config(TrainConfig, config, overrides)
    from verl_lite.engine.tools import diagnosis as room

    found, advice = room.diagnose(
        checked, num_prompts=prompts, num_samples=samples, records_path=out, debug_inline=debug_inline
    )
    if as_json:
        print_json(room.as_json(found, advice))
    else:
        _print_diagnosis(found, advice)


def _print_diagnosis(found: "Diagnosis", advice: "Advice") -> None:
    from verl_lite.cli.terminal import console, print_table

    rows = [
        ["format rate", "no reward measures it" if found.format_rate is None else f"{found.format_rate:.1%}"]
    ]
    rows += [[f"pass@{k}", f"{value:.1%}"] for k, value in found.pass_at.items()]
    rows += [
        ["groups without variance", f"{found.no_variance:.1%}"],
        ["  all right / all wrong", f"{found.all_right:.1%} / {found.all_wrong:.1%}"],
        ["entropy (nats per token)", f"{found.entropy:.3f}"],
        ["truncated", f"{found.truncated:.1%}"],
        ["tokens per completion", f"{found.completion_tokens_mean:.1f}"],
    ]
    print_table(f"{found.num_prompts} prompts x {found.num_samples} samples", ["", ""], rows)
    steps = f": {advice.sft_steps} steps of SFT" if advice.sft_steps else ""
    for line in (
        f"{advice.verdict}{steps}",
        f"  {advice.rule}",
        *(f"  also: {more}" for more in advice.also),
    ):
        console.print(line, markup=False, soft_wrap=True)
