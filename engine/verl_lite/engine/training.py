"""One training run from end to end: prepare, warm up, start the sampler, train, measure, sum up."""

import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from verl_lite.engine.build import (
    make_learner,
    make_sampler,
    make_timeline,
    open_cluster,
    place_for_ranks,
    reward_actors,
)
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.memory_plan import Gpu, local_gpu, make_plan
from verl_lite.engine.model.folder import default_device, load_policy, prepare_model, save_policy
from verl_lite.engine.model.shape import shape_of
from verl_lite.engine.observe.display import Display, DisplayMode, SummaryRow, make_display, summary_table
from verl_lite.engine.observe.metrics_log import MetricsLog
from verl_lite.engine.preparation import PreparedRun, hold_run, prepare_run
from verl_lite.engine.rundir.checkpoint_files import clear_write_errors
from verl_lite.engine.rundir.checkpoints import restore_random_states, retire
from verl_lite.engine.rundir.environment import make_deterministic, seed_torch
from verl_lite.engine.rundir.folder import RunFolder
from verl_lite.engine.rundir.interrupt import Interrupt, StopRequested
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors
from verl_lite.engine.sft.stage import run_sft
from verl_lite.engine.trainer import Trainer
from verl_lite.errors import ConfigError, RankLost
from verl_lite.plugins.scorer import Scorer

__all__ = ["RunResult", "train", "train_only_sft"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. `stopped` says that Ctrl-C ended it; `summary` is what summary.json holds."""

    run_dir: Path
    summary: Mapping[str, Any]
    stopped: bool = False


def train(
    config: TrainConfig,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    debug_inline: bool = False,
    console: Console | None = None,
    show: DisplayMode = "auto",
) -> RunResult:
    """SFT warm-up if configured, then RL. See preparation.py for what is refused beforehand.

    Ctrl-C ends it at the next safe point, with a checkpoint once RL has begun.
    """
    if not config.rewards:
        raise ConfigError("train needs rewards; for the supervised part alone use verl-lite sft")
    if config.rollout.server is not None and config.rollout.server.weights_dir is None:
        raise ConfigError(
            f"the server at rollout.server.url={config.rollout.server.url} would keep its own weights, so it "
            "cannot sample for training: name a folder both sides see in rollout.server.weights_dir"
        )
    started = time.perf_counter()
    console = console or Console()
    with hold_run(config, run_dir=run_dir, resume=resume) as prepared:
        if config.deterministic:
            make_deterministic()
        seed_torch(config.seed)
        display = make_display(console, show)
        try:
            if prepared.killed:
                display.note(_who_was_killed(prepared.killed))
            with Interrupt() as interrupt, open_cluster(config) as session:
                _tell_plan(config, session, display)
                if prepared.resumes:
                    done = prepared.checkpoint.step if prepared.checkpoint else 0
                    prepared.folder.cut_back(done, prepared.passed_over)
                else:
                    prepared.folder.claim(config, prepared.plugins, prepared.data)
                result = _run_to_the_end(
                    prepared, display, interrupt, session, debug_inline=debug_inline, started=started
                )
        finally:
            display.finish()
    if show == "json":
        _tell_json(result, console)
    else:
        _tell(result, prepared, console)
    return result


def train_only_sft(
    config: TrainConfig,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    debug_inline: bool = False,
    console: Console | None = None,
    show: DisplayMode = "auto",
) -> RunResult:
    """The supervised warm-up alone; the model lands in <run>/model. Raises ConfigError without sft.steps.

    Ctrl-C ends it between two steps, with a checkpoint.
    """
    if not config.sft.is_on:
        raise ConfigError("sft.steps=0 and sft.epochs=0: there is nothing to do; set one of them")
    started = time.perf_counter()
    console = console or Console()
    with hold_run(config, run_dir=run_dir, resume=resume, only_sft=True) as prepared:
        if config.deterministic:
            make_deterministic()
        seed_torch(config.seed)
        if not resume:
            prepared.folder.claim(config, prepared.plugins, prepared.data)
        display = make_display(console, show)
        result = _only_sft(prepared, display, debug_inline=debug_inline, started=started)
    if show == "json":
        _tell_json(result, console)
    elif result.stopped:
        how = _how_to_go_on(prepared.folder, "sft")
        console.print(how, markup=False, highlight=False, soft_wrap=True)
    return result


def _tell_json(result: RunResult, console: Console) -> None:
    console.print(json.dumps({"kind": "summary", **result.summary}), markup=False, soft_wrap=True)


def _only_sft(prepared: PreparedRun, display: Display, *, debug_inline: bool, started: float) -> RunResult:
    config = prepared.config
    if prepared.killed:
        display.note(_who_was_killed(prepared.killed))
    device = default_device()
    try:
        path = prepare_model(config.model, prepared.folder.model, seed=config.seed)
        model = load_policy(path, dtype=config.model.dtype, device=device)
        with Interrupt() as interrupt:
            trackers = config.logging.trackers
            with clear_memory_errors("updating"):
                model, metrics = run_sft(
                    prepared, model, display, interrupt, debug_inline=debug_inline, trackers=trackers
                )
        save_policy(model, prepared.tokenizer, prepared.folder.model)
    except StopRequested:
        return RunResult(run_dir=prepared.folder.path, summary={}, stopped=True)
    finally:
        display.finish()
    seconds = round(time.perf_counter() - started, 1)
    summary = {
        "name": config.name,
        "seconds": seconds,
        "metrics": {k: {"after": v} for k, v in metrics.items()},
    }
    prepared.folder.write_summary(summary)
    retire(prepared.folder.sft_checkpoints, config.checkpoints)
    return RunResult(run_dir=prepared.folder.path, summary=summary)


def _tell_plan(config: TrainConfig, session: Any, display: Display) -> None:
    """Say what the run needs where there are GPUs or a cluster; ConfigError where they cannot do."""
    gpu = local_gpu()
    if session is not None:
        from verl_lite.engine.cluster.demand import check_room

        joined = config.cluster.address is not None
        if short := check_room(config, session.ray.cluster_resources(), may_grow=joined):
            display.note(short)
        if joined:
            from verl_lite.engine.cluster.nodes import smallest_gpu

            found = smallest_gpu(session.ray)
            gpu = Gpu(name=found[0], memory_bytes=found[1]) if found else None
    if gpu is not None or session is not None:
        for line in make_plan(config, shape_of(config.model), gpu).lines():
            display.note(line)


def _run_to_the_end(
    prepared: PreparedRun,
    display: Display,
    interrupt: Interrupt,
    session: Any,
    *,
    debug_inline: bool,
    started: float,
) -> RunResult:
    """As `_run`, again from the last checkpoint when a learner rank was lost (cluster.max_restarts times)."""
    most = prepared.config.cluster.max_restarts
    for restarts in count(1):
        try:
            return _run(prepared, display, interrupt, session, debug_inline=debug_inline, started=started)
        except RankLost as lost:
            if restarts > most:
                raise RankLost(f"{lost}; cluster.max_restarts={most} restarts were not enough") from lost
            display.note(f"{lost}: restart {restarts} of {most}")
        prepared = _from_last_checkpoint(prepared)
    raise AssertionError("counting never ends")


def _from_last_checkpoint(prepared: PreparedRun) -> PreparedRun:
    """The run as it is resumed; from its beginning where it has no checkpoint yet."""
    folder = prepared.folder
    again = prepare_run(prepared.config, run_dir=folder.path, resume=True)
    folder.cut_back(again.checkpoint.step if again.checkpoint else 0, again.passed_over)
    return again


def _run(
    prepared: PreparedRun,
    display: Display,
    interrupt: Interrupt,
    session: Any,
    *,
    debug_inline: bool,
    started: float,
) -> RunResult:
    config, folder = prepared.config, prepared.folder
    try:
        path, model = _first_policy(prepared, display, interrupt, debug_inline=debug_inline)
    except StopRequested:
        return RunResult(run_dir=folder.path, summary={}, stopped=True)
    resume_at = prepared.checkpoint.step if prepared.checkpoint else None
    if resume_at is None and folder.metrics.exists():  # of a start that ended before its first checkpoint
        resume_at = 0
    with (
        place_for_ranks(config, session) as place,
        Scorer(
            config,
            catalog=prepared.catalog,
            debug_inline=debug_inline,
            decode=prepared.tokenizer.decode,
            failures_path=folder.path / "failed_rollouts.jsonl",
            placement=reward_actors(config, session),
        ) as scorer,
    ):
        with clear_memory_errors("starting the sampler"):
            sampler = make_sampler(prepared, path, session)
        log = MetricsLog(
            folder.path,
            run_name=config.name,
            trackers=config.logging.trackers,
            config=config.model_dump(mode="json"),
            resume_at=resume_at,
        )
        timeline = make_timeline(prepared)
        try:
            with closing(make_learner(prepared, path, model, place)) as learner:
                trainer = Trainer(
                    prepared,
                    learner=learner,
                    sampler=sampler,
                    scorer=scorer,
                    log=log,
                    display=display,
                    interrupt=interrupt,
                    timeline=timeline,
                )
                with trainer:
                    return _train_and_measure(prepared, trainer, display, started=started)
        except StopRequested:
            return RunResult(run_dir=folder.path, summary={}, stopped=True)
        finally:
            log.close()
            sampler.close()
            if timeline is not None:
                timeline.close()


def _first_policy(
    prepared: PreparedRun, display: Display, interrupt: Interrupt, *, debug_inline: bool
) -> tuple[str, Any]:
    """Where the policy RL begins with (after SFT, if any) lies on disk, and the model.

    With several learner ranks there is no model here: each rank loads it.
    """
    config, folder = prepared.config, prepared.folder
    device = default_device()
    has_own_start = config.model.tiny is not None or config.sft.is_on
    if prepared.checkpoint is not None:
        path = str(folder.model) if has_own_start else str(config.model.path)
        return path, _load_to_train(prepared, path, device)
    with clear_write_errors(str(folder.model)):
        path = prepare_model(config.model, folder.model, seed=config.seed)
    if config.sft.is_on:
        model = load_policy(path, dtype=config.model.dtype, device=device)
        with clear_memory_errors("updating"):
            model, _ = run_sft(prepared, model, display, interrupt, debug_inline=debug_inline)
        path = str(folder.model)
        with clear_write_errors(str(folder.model)):
            save_policy(model, prepared.tokenizer, folder.model)
        if not _is_quantized(config) and config.learner.num_ranks == 1:
            return path, model
        del model
        if device.type == "cuda":  # what SFT held belongs to the ranks and the engines now
            torch.cuda.empty_cache()
    return path, _load_to_train(prepared, path, device)


def _load_to_train(prepared: PreparedRun, path: str, device: torch.device) -> Any:
    config = prepared.config
    if config.learner.num_ranks > 1:
        return None
    return load_policy(path, dtype=config.model.dtype, device=device, quantize=_is_quantized(config))


def _is_quantized(config: TrainConfig) -> bool:
    return config.learner.lora is not None and config.learner.lora.quantize


def _train_and_measure(
    prepared: PreparedRun, trainer: Trainer, display: Display, *, started: float
) -> RunResult:
    """Raises StopRequested after a Ctrl-C, once there is a checkpoint of the steps that were done."""
    folder, measures = prepared.folder, bool(prepared.held_out_prompts)
    trainer.sync()
    if prepared.checkpoint is not None:
        assert prepared.checkpoint_path is not None
        for passed in prepared.passed_over:
            display.note(f"passed over {passed.path}: {passed.reason}; renamed to damaged_{passed.path.name}")
        display.note(f"resumed from {prepared.checkpoint_path} after {trainer.step} steps")
        restore_random_states(prepared.checkpoint_path)
    elif measures:
        trainer.before = trainer.evaluate(may_stop=True)
        display.note(f"held-out accuracy before RL: {trainer.before['evaluation/accuracy']:.1%}")
    trainer.run_steps()
    if trainer.step:
        retire(folder.sft_checkpoints, prepared.config.checkpoints)
    after = trainer.evaluate(may_stop=True) if measures else {}
    summary = {
        "name": prepared.config.name,
        "steps": trainer.step,
        "seconds": round(time.perf_counter() - started, 1),
        "metrics": {name: {"before": trainer.before[name], "after": after[name]} for name in after},
    }
    with clear_write_errors(str(folder.summary)):
        folder.write_summary(summary)
    return RunResult(run_dir=folder.path, summary=summary)


def _tell(result: RunResult, prepared: PreparedRun, console: Console) -> None:
    if result.stopped:
        console.print(_how_to_go_on(prepared.folder, "train"), markup=False, highlight=False, soft_wrap=True)
        return
    rows = [
        SummaryRow(
            name=name.removeprefix("evaluation/").replace("_", " "),
            before=values["before"],
            after=values["after"],
            is_fraction=name.endswith("accuracy"),
        )
        for name, values in result.summary["metrics"].items()
    ]
    if rows:
        console.print(summary_table(rows, title=f"{prepared.config.name}: {result.summary['steps']} steps"))
    console.print(f"{result.summary['seconds']:.0f} s, {result.run_dir}/", highlight=False, soft_wrap=True)


def _who_was_killed(holder: str) -> str:
    return (
        f"{holder} was killed while it trained here; if nobody did that, the kernel was out of memory "
        "(see dmesg)"
    )


def _how_to_go_on(folder: RunFolder, command: str) -> str:
    config = folder.path / "config.yaml"
    return f"stopped; continue with: verl-lite {command} {config} --run-dir {folder.path} --resume"
