"""`verl-lite dpo`, `reward-model` and `preferences`."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import (
    AsJson,
    ConfigFile,
    Overrides,
    Resume,
    Rollouts,
    RunDir,
    Show,
    ShowOption,
    Workers,
    scoring_options,
)
from verl_lite.cli.start import INTERRUPTED, load_run_config

if TYPE_CHECKING:
    from verl_lite.lab.preferences import Candidates

preferences_app = typer.Typer(no_args_is_help=True, help="Collect preferences and inspect them.")


def dpo(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    resume: Resume = False,
    show: ShowOption = Show.AUTO,
) -> None:
    """Train a policy on preferences directly (DPO); the model is saved in <run>/model.

    Example: verl-lite dpo examples/dpo.yaml beta=0.2
    """
    from verl_lite.engine.preference import DPOConfig

    checked = load_run_config(DPOConfig, config, overrides)
    from verl_lite.engine.preference import train_dpo

    result = train_dpo(checked, run_dir=run_dir, resume=resume, show=show.value)
    if result.model_dir is None:
        raise typer.Exit(INTERRUPTED)


def reward_model(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    resume: Resume = False,
    show: ShowOption = Show.AUTO,
) -> None:
    """Train a reward model on preferences, for the reward `reward_model` and for transformers.

    Example: verl-lite reward-model examples/reward_model.yaml loss=plackett_luce
    """
    from verl_lite.engine.preference import RewardModelConfig

    checked = load_run_config(RewardModelConfig, config, overrides)
    from verl_lite.engine.preference import train_reward_model

    result = train_reward_model(checked, run_dir=run_dir, resume=resume, show=show.value)
    if result.model_dir is None:
        raise typer.Exit(INTERRUPTED)


@preferences_app.command("collect")
def collect(
    rollouts: Rollouts,
    output: Annotated[Path, typer.Option("--output", "-o", help="The preferences: a .jsonl file")],
    rewards: Annotated[Path | None, typer.Option(help="Rank by the rewards of this config")] = None,
    judge: Annotated[Path | None, typer.Option(help="Rank by the judge model of this config")] = None,
    annotator: Annotated[str | None, typer.Option(help="Rank by hand, as this person, in a browser")] = None,
    max_completions: Annotated[
        int | None, typer.Option(min=2, max=9, help="At most this many per prompt; 2 to compare pairs")
    ] = None,
    tie_within: Annotated[float, typer.Option(min=0, help="Rewards at most this far apart are ties")] = 0.0,
    port: Annotated[int, typer.Option(help="Port of the page; default: a free one")] = 0,
    seed: Annotated[int, typer.Option(help="Seed that selects which completions of a prompt are kept")] = 0,
    workers: Workers = None,
) -> None:
    """Rank the completions of each prompt: by rewards, by a judge model, or by hand.

    Example: verl-lite preferences collect rollouts.parquet --rewards rewards.yaml -o preferences.jsonl
    """
    from verl_lite.errors import ConfigError
    from verl_lite.lab.preferences import read_candidates

    if sum(option is not None for option in (rewards, judge, annotator)) != 1:
        raise ConfigError("preferences collect: name exactly one of --rewards, --judge and --annotator")
    if output.suffix != ".jsonl":
        raise ConfigError(f"--output {output}: preferences go to a .jsonl file")
    limit = max_completions or (9 if annotator is not None else None)
    candidates = read_candidates(rollouts, max_completions=limit, seed=seed)
    if rewards is not None:
        _by_rewards(candidates, output, rewards, tie_within, workers)
    elif judge is not None:
        _by_judge(candidates, output, judge)
    else:
        _by_hand(candidates, output, str(annotator), port)


def _by_rewards(
    candidates: Iterable["Candidates"], output: Path, config: Path, tie_within: float, workers: int | None
) -> None:
    from verl_lite.lab.preferences import write_preferences
    from verl_lite.lab.preferences.by_rewards import rank_by_rewards
    from verl_lite.lab.scoring import open_scorer, without_breaker
    from verl_lite.plugins import load_rewards_config
    from verl_lite.plugins.progress import counted

    checked = without_breaker(load_rewards_config(config))
    options = scoring_options(workers=workers, no_plugins=False)
    groups = list(candidates)
    with open_scorer(checked, options) as scorer:
        watched = counted(groups, "ranking", total=len(groups))
        rows = list(rank_by_rewards(watched, scorer, annotator=config.stem, tie_within=tie_within))
    write_preferences(output, rows)
    print(f"{len(rows):,} of {len(groups):,} prompts ranked, the others had ties only: {output}")


def _by_judge(candidates: Iterable["Candidates"], output: Path, config: Path) -> None:
    from verl_lite.lab.preferences import rank_by_judge, write_preferences
    from verl_lite.plugins.builtin import ComparisonJudge
    from verl_lite.plugins.config_file import load_config
    from verl_lite.plugins.progress import stage

    with stage("asking the judge"):
        report = rank_by_judge(candidates, load_config(ComparisonJudge, config))
    write_preferences(output, report.rows)
    print(
        f"{len(report.rows):,} prompts ranked: {output}\n{report.num_swayed:,} of {report.num_pairs:,} pairs "
        "were judged by their position and count as ties"
    )


def _by_hand(candidates: Iterable["Candidates"], output: Path, annotator: str, port: int) -> None:
    from verl_lite.lab.preferences.by_people import AnnotationPage, AnnotationStore

    store = AnnotationStore(output, list(candidates), annotator=annotator)
    with AnnotationPage(store, port=port) as page:
        print(f"open {page.url}\nevery judgement is saved in {output}; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            page.serve()
    print(f"{len(store.judged):,} judged")
    store.close()


@preferences_app.command("agreement")
def agreement(
    files: Annotated[list[Path], typer.Argument(help="Preferences (.jsonl)")],
    as_json: AsJson = False,
) -> None:
    """Show how often annotators agree on the pairs that both judged.

    Example: verl-lite preferences agreement ann.jsonl ben.jsonl by_rewards.jsonl
    """
    from dataclasses import asdict

    from verl_lite.cli.terminal import number, print_json, print_table
    from verl_lite.lab.preferences import annotator_agreement, annotator_name, read_preferences

    judged = [row for path in files for row in read_preferences(path)]
    found = annotator_agreement(judged)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    if not found:
        names = ", ".join(sorted({annotator_name(row) for row in judged}))
        typer.echo(
            f"no two annotators judged the same pair: the {len(judged)} rows are by {names or 'nobody'}"
        )
        return
    rows = [
        [
            f"{one.first} and {one.second}",
            f"{one.num_pairs:,}",
            f"{one.agreed:.1%}",
            f"{one.interval[0]:.1%} to {one.interval[1]:.1%}",
            number(one.kappa),
        ]
        for one in found
    ]
    print_table("agreement", ["annotators", "pairs", "agree", "95% interval", "kappa"], rows)
