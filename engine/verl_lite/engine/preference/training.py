"""One run of DPO or a reward model, from its config to its folder and table."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from verl_lite.engine.gpu_checks import check_driver, this_machine
from verl_lite.engine.learner.loop_checkpoints import LoopCheckpoints, LoopStart, find_start
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.learner.proof import Arrangement
from verl_lite.engine.model.compatibility import check_config, check_vocabulary
from verl_lite.engine.model.configuration import check_context
from verl_lite.engine.model.end_tokens import end_of_answer, end_token_ids
from verl_lite.engine.model.folder import (
    default_device,
    load_policy,
    load_tokenizer,
    open_chat_template,
    pad_token_id,
    prepare_model,
)
from verl_lite.engine.model.lora import add_adapters
from verl_lite.engine.model.saved import save_checked
from verl_lite.engine.model.weights import float32_master_weights
from verl_lite.engine.observe.display import DisplayMode
from verl_lite.engine.observe.metrics_log import check_trackers
from verl_lite.engine.open_run import Run, open_run
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
from verl_lite.engine.rundir.fingerprints import data_digest, date_of
from verl_lite.engine.rundir.folder import FREE_FOR_MEMORY, RunFolder
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors
from verl_lite.engine.types import Tokenizer

FREE_TO_CHANGE = ("checkpoints", "trackers", "name", *FREE_FOR_MEMORY)
SHOWN = ("accuracy", "margin", "chosen", "rejected", "loss", "calibration_error")  # in this order


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceResult:
    """How a run ended; without `model_dir` when Ctrl-C stopped it."""

    run_dir: Path
    model_dir: Path | None
    metrics: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    tokenizer: Tokenizer
    pad_token_id: int
    rankings: Rankings
    device: torch.device
    start: LoopStart
    resumes: bool
    date: str


def train_dpo(
    config: DPOConfig,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    console: Console | None = None,
    show: DisplayMode = "auto",
) -> PreferenceResult:
    """Train the policy on the config's pairs; it is saved in <run>/model.

    `resume` continues the run in its folder exactly. Ctrl-C ends it between two steps, with a checkpoint.
    """
    prepare = partial(_prepare, config, _replies(config), resume=resume)
    with open_run(
        config, prepare, command="dpo", run_dir=run_dir, resume=resume, console=console, show=show
    ) as run:
        _claim(run)
        _dpo(run, config)
    return _result(run)


def train_reward_model(
    config: RewardModelConfig,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    console: Console | None = None,
    show: DisplayMode = "auto",
) -> PreferenceResult:
    """Train a reward model on the config's rankings; it is saved in <run>/model. `resume` as in train_dpo."""
    prepare = partial(_prepare, config, chat_ids, resume=resume)
    with open_run(
        config, prepare, command="reward-model", run_dir=run_dir, resume=resume, console=console, show=show
    ) as run:
        _claim(run)
        _reward_model(run, config)
    return _result(run)


def _claim(run: Run[_Prepared]) -> None:
    if not run.inputs.resumes:
        rows = {"rows": len(run.inputs.rankings.train), "sha256": run.inputs.start.data}
        run.folder.claim(run.config, [], {"data.train": rows}, date=run.inputs.date)


def _result(run: Run[_Prepared]) -> PreferenceResult:
    return PreferenceResult(
        run_dir=run.folder.path,
        model_dir=None if run.stopped else run.folder.model,
        metrics=dict(run.summary.get("metrics", {})),
    )


def _prepare(config: PreferenceConfig, tokenise: Tokenise, folder: RunFolder, *, resume: bool) -> _Prepared:
    """Check everything and read the data; rename damaged checkpoints of a resumed run."""
    check_driver(this_machine())
    if resume:
        folder.check_same_run(config, free=FREE_TO_CHANGE)
        folder.refuse_finished()
    check_trackers(config.trackers)
    tokenizer = load_tokenizer(config.model, chat_template=config.data.chat_template)
    today = config.data.date or date_of(folder.environment)
    if isinstance(config, DPOConfig):  # a reward model may start from another one
        check_config(config.model.path or "")
    check_vocabulary(tokenizer, config.model)
    check_context(config.model, needed_tokens=config.data.max_tokens, what="data.max_tokens")
    template = open_chat_template(tokenizer, config.data, today=today)
    rankings = read_rankings(config, template, tokenise)
    data = data_digest(
        [list(sample.prompt_ids), list(sample.completion_ids), rank]
        for ranking in rankings.train
        for sample, rank in zip(ranking.samples, ranking.ranks, strict=True)
    )
    return _Prepared(
        tokenizer=tokenizer,
        pad_token_id=pad_token_id(tokenizer),
        rankings=rankings,
        device=default_device(),
        start=find_start(folder.checkpoints, data=data, resume=resume),
        resumes=resume,
        date=today.isoformat(),
    )


def _replies(config: DPOConfig) -> Tokenise:
    """Tokenise completions as replies of the config's model, with its chat template's end of turn."""

    @cache
    def end_id(tokenizer: Tokenizer) -> int:
        return end_of_answer(tokenizer, end_token_ids(tokenizer, config.model.path))

    return lambda template, row: reply_ids(template, row, end_id=end_id(template.tokenizer))


def _dpo(run: Run[_Prepared], config: DPOConfig) -> None:
    prepared = run.inputs
    path = prepare_model(config.model, run.folder.model, seed=config.seed)
    train, held_out = prepared.rankings.train, prepared.rankings.held_out

    def make_policy(model: nn.Module) -> Policy:
        float32_master_weights(model)
        return Policy(model, config.learner, pad_token_id=prepared.pad_token_id)

    if config.reference is not None:
        other = load_policy(config.reference, dtype=config.model.dtype, device=prepared.device)
        train, held_out = (with_reference(part, make_policy(other)) for part in (train, held_out))
        del other
    model = load_policy(path, dtype=config.model.dtype, device=prepared.device)
    policy = make_policy(add_adapters(model, config.learner.lora))
    _tell(run, policy.arrangement)
    if config.reference is None:
        train, held_out = (with_reference(part, policy) for part in (train, held_out))
    _train(
        run,
        config,
        DPOObjective(policy, config),
        (train, held_out),
        save=lambda folder: save_checked(policy.model, prepared.tokenizer, folder),
    )


def _reward_model(run: Run[_Prepared], config: RewardModelConfig) -> None:
    prepared = run.inputs
    path = prepare_model(config.model, run.folder.path / "start", seed=config.seed)
    model = load_scoring_model(
        path, dtype=config.model.dtype, device=prepared.device, pad_token_id=prepared.pad_token_id
    )
    head = ScoringHead(model, config.learner, pad_token_id=prepared.pad_token_id)
    _tell(run, head.arrangement)
    _train(
        run,
        config,
        RewardModelObjective(head, config),
        (prepared.rankings.train, prepared.rankings.held_out),
        save=lambda folder: save_scoring_model(head.model, prepared.tokenizer, folder),
    )


def _tell(run: Run[_Prepared], arrangement: Arrangement) -> None:
    if arrangement.note:
        run.display.note(arrangement.note)


def _train(
    run: Run[_Prepared],
    config: PreferenceConfig,
    objective: Objective,
    data: tuple[Sequence[Ranking], Sequence[Ranking]],
    *,
    save: Callable[[Path], None],
) -> None:
    """Evaluate, train on `data` (train, held out), evaluate, save. Raises StopRequested after Ctrl-C."""
    prepared, (train, held_out) = run.inputs, data
    start, steps = prepared.start, num_steps(config, len(train))
    for line in (_what(prepared.rankings, steps), *start.lines):
        run.display.note(line)
    with (
        run.open_log(config.trackers, resume_at=start.step if prepared.resumes else None) as log,
        clear_memory_errors("updating"),
    ):
        run.interrupt.check()  # the reference's pass over the data may take long
        before = dict(start.notes) if start.step else _measure(objective, held_out, config).metrics
        run.interrupt.check()

        def on_step(step: int, metrics: dict[str, float]) -> None:
            log.log(metrics, step=step)
            run.display.preference_step(step, steps, metrics)

        with LoopCheckpoints(
            run.folder.checkpoints,
            start,
            config=config.checkpoints,
            tokenizer=prepared.tokenizer,
            log=log,
            interrupt=run.interrupt,
            notes=before,  # the metrics before the first step are saved with every checkpoint
        ) as checkpoints:
            train_preferences(objective, train, held_out, config, on_step=on_step, checkpoints=checkpoints)
        measured = _measure(objective, held_out, config)
        if after := measured.metrics:
            log.log(after, step=steps)
    save(run.folder.model)
    run.folder.write_calibration([asdict(one) for one in measured.calibration])
    names = [f"held_out/{name}" for name in SHOWN if f"held_out/{name}" in after]
    metrics = {name: {"before": before[name], "after": after[name]} for name in names}
    run.finish(metrics, model=run.folder.model, steps=steps)
    run.retire(run.folder.checkpoints)


def _measure(objective: Objective, held_out: Sequence[Ranking], config: PreferenceConfig) -> Measured:
    if not held_out:
        return Measured(metrics={}, calibration=[])
    return evaluate(objective, held_out, max_tokens=config.learner.max_tokens_per_micro_batch)


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
