"""One run of DPO or of a reward model, from its config to its folder and table."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from verl_lite.engine.learner.loop_checkpoints import LoopCheckpoints, LoopStart, data_digest, find_start
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.model.end_tokens import end_of_answer, end_token_ids
from verl_lite.engine.model.folder import (
    check_context,
    default_device,
    load_policy,
    load_tokenizer,
    prepare_model,
    save_policy,
)
from verl_lite.engine.model.lora import add_adapters
from verl_lite.engine.model.weights import float32_master_weights
from verl_lite.engine.observe.display import SummaryRow, summary_table
from verl_lite.engine.observe.metrics_log import MetricsLog, check_trackers
from verl_lite.engine.preference.config import DPOConfig, PreferenceConfig, RewardModelConfig
from verl_lite.engine.preference.data import (
    Ranking,
    Rankings,
    Tokenise,
    chat_ids,
    read_rankings,
    reply_ids,
)
from verl_lite.engine.preference.dpo import DPOObjective, with_reference
from verl_lite.engine.preference.loop import Measured, Objective, evaluate, num_steps, train_preferences
from verl_lite.engine.preference.reward_model import (
    RewardModelObjective,
    ScoringHead,
    load_scoring_model,
    save_scoring_model,
)
from verl_lite.engine.rundir.checkpoints import retire
from verl_lite.engine.rundir.environment import make_deterministic, seed_torch
from verl_lite.engine.rundir.folder import FREE_FOR_MEMORY, RunFolder, choose_run_dir
from verl_lite.engine.rundir.interrupt import Interrupt, StopRequested
from verl_lite.engine.rundir.lock import run_lock
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors

__all__ = ["PreferenceResult", "train_dpo", "train_reward_model"]

FREE_TO_CHANGE = ("checkpoints", "trackers", "name", *FREE_FOR_MEMORY)
SHOWN = ("accuracy", "margin", "chosen", "rejected", "loss", "calibration_error")
ConfigT = TypeVar("ConfigT", bound=PreferenceConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceResult:
    """How a run ended; without `model_dir` when Ctrl-C stopped it."""

    run_dir: Path
    model_dir: Path | None
    metrics: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    folder: RunFolder
    tokenizer: Any
    pad_token_id: int
    rankings: Rankings
    device: torch.device
    start: LoopStart
    resumes: bool


def train_dpo(
    config: DPOConfig, *, run_dir: Path | None = None, resume: bool = False, console: Console | None = None
) -> PreferenceResult:
    """Train the policy on the config's pairs; it lands in <run>/model.

    `resume` continues the run in its folder: the same run as if it had not stopped.
    """
    with ExitStack() as held:
        prepared = _prepare(config, run_dir, _replies(config), resume=resume, held=held)
        return _dpo(config, prepared, console or Console())


def _replies(config: DPOConfig) -> Tokenise:
    """Replies of the config's model: they end as its chat template ends them."""

    @cache
    def end_id(tokenizer: Any) -> int:
        return end_of_answer(tokenizer, end_token_ids(tokenizer, config.model.path or ""))

    return lambda tokenizer, row: reply_ids(tokenizer, row, end_id=end_id(tokenizer))


def _dpo(config: DPOConfig, prepared: _Prepared, console: Console) -> PreferenceResult:
    path = prepare_model(config.model, prepared.folder.model, seed=config.seed)
    train, held_out = prepared.rankings.train, prepared.rankings.held_out

    def make_policy(model: Any) -> Policy:
        float32_master_weights(model)
        return Policy(model, config.learner, pad_token_id=prepared.pad_token_id)

    if config.reference is not None:
        other = load_policy(config.reference, dtype=config.model.dtype, device=prepared.device)
        train, held_out = (with_reference(part, make_policy(other)) for part in (train, held_out))
        del other
    model = load_policy(path, dtype=config.model.dtype, device=prepared.device)
    policy = make_policy(add_adapters(model, config.learner.lora))
    if config.reference is None:
        train, held_out = (with_reference(part, policy) for part in (train, held_out))
    return _run(
        config,
        prepared,
        DPOObjective(policy, config),
        (train, held_out),
        save=lambda folder: save_policy(policy.model, prepared.tokenizer, folder),
        console=console,
    )


def train_reward_model(
    config: RewardModelConfig,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> PreferenceResult:
    """Train a reward model on the config's rankings; it lands in <run>/model. `resume` as in `train_dpo`."""
    with ExitStack() as held:
        prepared = _prepare(config, run_dir, chat_ids, resume=resume, held=held)
        return _reward_model(config, prepared, console or Console())


def _reward_model(config: RewardModelConfig, prepared: _Prepared, console: Console) -> PreferenceResult:
    path = prepare_model(config.model, prepared.folder.path / "start", seed=config.seed)
    model = load_scoring_model(
        path, dtype=config.model.dtype, device=prepared.device, pad_token_id=prepared.pad_token_id
    )
    head = ScoringHead(model, config.learner, pad_token_id=prepared.pad_token_id)
    return _run(
        config,
        prepared,
        RewardModelObjective(head, config),
        (prepared.rankings.train, prepared.rankings.held_out),
        save=lambda folder: save_scoring_model(head.model, prepared.tokenizer, folder),
        console=console,
    )


def _prepare(
    config: PreferenceConfig, run_dir: Path | None, tokenise: Tokenise, *, resume: bool, held: ExitStack
) -> _Prepared:
    """Check everything and read the data; then claim the folder, unless its run is resumed.

    `held` keeps it locked against other processes.
    """
    folder = RunFolder(choose_run_dir(config, run_dir, resume=resume))
    if resume:
        held.enter_context(run_lock(folder.path))
        folder.check_same_run(config, free=FREE_TO_CHANGE)
        folder.refuse_finished()
    check_trackers(config.trackers)
    if config.deterministic:
        make_deterministic()
    seed_torch(config.seed)
    tokenizer = load_tokenizer(config.model)
    check_context(config.model, needed_tokens=config.data.max_tokens, what="data.max_tokens")
    rankings = read_rankings(config, tokenizer, tokenise)
    start = find_start(folder.checkpoints, data=_digest(rankings), resume=resume)
    if not resume:
        held.enter_context(run_lock(folder.path))
        fingerprint = {"rows": len(rankings.train), "sha256": start.data}
        folder.claim(config, [], {"data.train": fingerprint})
    return _Prepared(
        start=start,
        resumes=resume,
        folder=folder,
        tokenizer=tokenizer,
        pad_token_id=int(
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        ),
        rankings=rankings,
        device=default_device(),
    )


def _digest(rankings: Rankings) -> str:
    return data_digest(
        [list(sample.prompt_ids), list(sample.completion_ids), rank]
        for ranking in rankings.train
        for sample, rank in zip(ranking.samples, ranking.ranks, strict=True)
    )


def _run(
    config: PreferenceConfig,
    prepared: _Prepared,
    objective: Objective,
    data: tuple[Sequence[Ranking], Sequence[Ranking]],
    *,
    save: Callable[[Path], None],
    console: Console,
) -> PreferenceResult:
    started = time.perf_counter()
    train, held_out = data
    steps = num_steps(config, len(train))
    _say(console, _what(prepared.rankings, steps))
    for line in prepared.start.lines:
        _say(console, line)
    folder = prepared.folder
    log = MetricsLog(
        folder.path,
        run_name=config.name,
        trackers=config.trackers,
        config=config.model_dump(mode="json"),
        resume_at=prepared.start.step if prepared.resumes else None,
    )

    def on_step(step: int, metrics: dict[str, float]) -> None:
        log.log(metrics, step=step)
        if step % max(steps // 10, 1) == 0 or step == steps:
            _say(console, _line(step, steps, metrics))

    def measure() -> Measured:
        budget = config.learner.max_tokens_per_micro_batch
        nothing = Measured(metrics={}, calibration=[])
        return evaluate(objective, held_out, max_tokens=budget) if held_out else nothing

    try:
        with Interrupt() as interrupt, clear_memory_errors("updating"):
            before = dict(prepared.start.notes) if prepared.start.step else measure().metrics
            checkpoints = _checkpoints(prepared, config, log, interrupt, before=before)
            try:
                train_preferences(
                    objective, train, held_out, config, on_step=on_step, checkpoints=checkpoints
                )
                checkpoints.finish()
            finally:
                checkpoints.close()
            measured = measure()
            if after := measured.metrics:
                log.log(after, step=steps)
    except StopRequested:
        _say(console, f"stopped; go on with the same command, --run-dir {folder.path} and --resume")
        return PreferenceResult(run_dir=folder.path, model_dir=None, metrics={})
    finally:
        log.close()
    save(folder.model)
    folder.write_calibration([asdict(one) for one in measured.calibration])
    metrics = {name: {"before": before[name], "after": after[name]} for name in after}
    seconds = round(time.perf_counter() - started, 1)
    folder.write_summary({"name": config.name, "steps": steps, "seconds": seconds, "metrics": metrics})
    retire(folder.checkpoints, config.checkpoints)
    _tell(console, config.name, metrics)
    _say(console, f"{seconds:.0f} s; the model is in {folder.model}/")
    return PreferenceResult(run_dir=folder.path, model_dir=folder.model, metrics=metrics)


def _checkpoints(
    prepared: _Prepared,
    config: PreferenceConfig,
    log: MetricsLog,
    interrupt: Interrupt,
    *,
    before: dict[str, float],
) -> LoopCheckpoints:
    """`before`, what was measured before the first step, travels with them."""
    return LoopCheckpoints(
        prepared.folder.checkpoints,
        prepared.start,
        config=config.checkpoints,
        tokenizer=prepared.tokenizer,
        log=log,
        interrupt=interrupt,
        notes=before,
    )


def _what(rankings: Rankings, steps: int) -> str:
    pairs = sum(len(ranking.pairs) for ranking in rankings.train)
    counts = {
        "with ties only": rankings.num_tied,
        "that rank equal completions": rankings.num_same,
        "too long": rankings.num_dropped,
    }
    left_out = ", ".join(f"{count} {why}" for why, count in counts.items() if count)
    return (
        f"{len(rankings.train):,} rows to train on ({pairs:,} pairs), {len(rankings.held_out):,} held out, "
        f"{steps:,} steps{'; left out: ' + left_out if left_out else ''}"
    )


def _line(step: int, steps: int, metrics: dict[str, float]) -> str:
    names = ("loss", "accuracy", "margin", "chosen", "rejected")
    parts = "  ".join(f"{name} {metrics['train/' + name]:.4f}" for name in names)
    return f"step {step:>4}/{steps}  {parts}"


def _tell(console: Console, name: str, metrics: dict[str, dict[str, float]]) -> None:
    rows = [
        SummaryRow(
            name=short.replace("_", " "),
            before=metrics[f"held_out/{short}"]["before"],
            after=metrics[f"held_out/{short}"]["after"],
            is_fraction=short == "accuracy",
        )
        for short in SHOWN
        if f"held_out/{short}" in metrics
    ]
    if rows:
        console.print(summary_table(rows, title=name, first_column="held-out pairs"))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
