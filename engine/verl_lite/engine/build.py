"""Build the parts of a run from its config. Each choice is made once, here; imports follow it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.engine.config.cross_checks import check_address
from verl_lite.engine.config.learner import LoraConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.stream import make_stream
from verl_lite.engine.learner.learner import Learner
from verl_lite.engine.model.configuration import attention_window
from verl_lite.engine.model.end_tokens import end_token_ids
from verl_lite.engine.model.folder import default_device, load_policy, pad_token_id
from verl_lite.engine.model.lora import adapters_to_sync
from verl_lite.engine.observe.timeline import Timeline
from verl_lite.engine.preparation import PreparedRun
from verl_lite.engine.rollout.async_source import AsyncSource
from verl_lite.engine.rollout.batch_maker import BatchMaker
from verl_lite.engine.rollout.batch_source import BatchSource, SyncSource
from verl_lite.engine.rollout.canary import canary_tokens
from verl_lite.engine.rollout.prefetch_source import PrefetchSource
from verl_lite.engine.rollout.replay import ReplayBuffer
from verl_lite.engine.rollout.turns.plan import with_turns
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.types import PolicyLearner, PreTrainedModel, Sampler, Tokenizer
from verl_lite.plugins.execution import Placement
from verl_lite.plugins.scorer import Scorer

if TYPE_CHECKING:
    from verl_lite.engine.cluster.ray_runtime import RayRuntime
    from verl_lite.engine.rollout.turns.sampler import InnerSampler


@dataclass(frozen=True, slots=True, kw_only=True)
class OnRay:
    """What Ray places for a run: `num_ranks` learner ranks, `cpus` in total. Ray starts only if cpus > 0."""

    num_ranks: int
    cpus: float


def placed_by_ray(config: TrainConfig, *, launched: bool) -> OnRay:
    """`launched`: torchrun started the learner ranks. Raises ConfigError for an address without use."""
    num_ranks = config.learner.num_ranks if config.learner.num_ranks > 1 and not launched else 0
    rewards = config.cluster.rewards
    check_address(config.cluster, ranks=num_ranks > 0, engines=config.rollout.is_placed_by_ray)
    return OnRay(
        num_ranks=num_ranks, cpus=num_ranks + config.rollout.placed_cpus + rewards.count * rewards.cpus
    )


def open_cluster(config: TrainConfig, on_ray: OnRay) -> "AbstractContextManager[RayRuntime | None]":
    """A Ray session, or None where Ray places nothing."""
    if not on_ray.cpus:
        return nullcontext()
    from verl_lite.engine.cluster.ray_runtime import RayRuntime

    return RayRuntime(config.cluster, cpus=on_ray.cpus)


def make_scorer(prepared: PreparedRun, *, debug_inline: bool, placement: Placement | None = None) -> Scorer:
    """A scorer with the config's rewards; the caller closes it. `placement` comes from `reward_actors`."""
    return Scorer(
        prepared.config,
        catalog=prepared.catalog,
        debug_inline=debug_inline,
        decode=prepared.tokenizer.decode,
        failures_path=prepared.folder.path / "failed_rollouts.jsonl",
        placement=placement,
    )


def reward_actors(config: TrainConfig, session: "RayRuntime | None") -> Placement | None:
    """The reward workers on the cluster; None if the config has none."""
    if not config.cluster.rewards.count:
        return None
    from verl_lite.engine.cluster.reward_actors import RewardActors

    assert session is not None
    return RewardActors(session.ray, config.cluster)


def reserve_ranks(
    config: TrainConfig, on_ray: OnRay, session: "RayRuntime | None"
) -> AbstractContextManager[Any]:
    """Reserve resources for Ray's learner ranks, before engines are placed; None without such ranks."""
    if not on_ray.num_ranks:
        return nullcontext()
    from verl_lite.engine.cluster.ray_ranks import reserve_placement_group

    assert session is not None
    timeout_s = config.cluster.start_timeout_s
    return reserve_placement_group(on_ray.num_ranks, on_gpu=session.on_gpu, timeout_s=timeout_s)


def make_learner(
    prepared: PreparedRun, path: str, model: "PreTrainedModel | None", placement_group: Any = None
) -> PolicyLearner:
    """A learner of `model`, or ranks in `placement_group` (from `reserve_ranks`) that each load `path`."""
    config = prepared.config
    if config.learner.num_ranks > 1:
        return _make_ranks(prepared, path, placement_group)
    assert model is not None
    return Learner(
        model,
        config.learner,
        config.algorithm,
        pad_token_id=pad_token_id(prepared.tokenizer),
        total_steps=config.steps,
        temperature=config.rollout.temperature,
        bad_batch_dir=prepared.folder.bad_batches,
        seed=derive_seed(config.seed, "learner"),
    )


def _make_ranks(prepared: PreparedRun, path: str, placement_group: Any) -> PolicyLearner:
    """A learner of several processes: torchrun's, or Ray actors."""
    from verl_lite.engine.cluster.learner_group import LearnerGroup, Transport
    from verl_lite.engine.cluster.rank_worker import LearnerSpec

    config = prepared.config
    spec = LearnerSpec(
        config=_with_findable_critic(config),
        model_path=_findable(path),
        pad_token_id=pad_token_id(prepared.tokenizer),
        run_dir=prepared.folder.path.absolute(),
    )
    transport: Transport
    if placement_group is not None:
        from verl_lite.engine.cluster.ray_ranks import RayRanks

        transport = RayRanks(spec, config.cluster, placement_group)
    else:
        from verl_lite.engine.cluster.torchrun_ranks import TorchrunRanks

        transport = TorchrunRanks(spec)
    return LearnerGroup(transport, config.algorithm)


def _findable(model_path: str) -> str:
    """The absolute path of a folder, as Ray's processes have another working directory; a hub id as is."""
    return str(Path(model_path).absolute()) if Path(model_path).exists() else model_path


def _with_findable_critic(config: TrainConfig) -> TrainConfig:
    critic = config.algorithm.critic
    if critic is None or not critic.model:
        return config
    found = critic.model_copy(update={"model": _findable(critic.model)})
    return config.model_copy(update={"algorithm": config.algorithm.model_copy(update={"critic": found})})


def make_source(
    prepared: PreparedRun,
    sampler: Sampler,
    scorer: Scorer,
    *,
    check: Callable[[], None],
    timeline: Timeline | None,
) -> tuple[BatchSource, ReplayBuffer | None]:
    """The batches that `asynchrony.mode` names, and the groups kept for replay.

    `check` raises StopRequested after Ctrl-C.
    """
    config, curriculum = prepared.config, prepared.config.data.curriculum
    rows = prepared.train_prompts
    prompts = make_stream(rows, prepared.train_sources, seed=config.seed, curriculum=curriculum)
    kept = None if curriculum is None else curriculum.replay
    replay = None if kept is None else ReplayBuffer(kept, seed=config.seed)
    make = BatchMaker(prompts, sampler, scorer, config, replay)
    match config.asynchrony.mode:
        case "sync":
            return SyncSource(make, prompts, sampler, check=check), replay
        case "one_ahead":
            steps = config.steps
            return PrefetchSource(make, prompts, num_steps=steps, check=check, timeline=timeline), replay
        case "async":
            return AsyncSource(sampler, scorer, config, prompts, check=check, timeline=timeline), replay


def make_timeline(prepared: PreparedRun, on_ray: OnRay) -> Timeline | None:
    """The timeline, for runs in which one process may wait for another; else None."""
    if prepared.config.asynchrony.mode == "sync" and not on_ray.cpus:
        return None
    resume_at = prepared.checkpoint.step if prepared.checkpoint else None
    return Timeline(prepared.folder.timeline, resume_at=resume_at)


def run_canary(prepared: PreparedRun, model_path: str) -> tuple[list[int], str]:
    """See `canary_tokens`: from the run's prompts, longer than the model's window."""
    return canary_tokens(
        prepared.train_prompts,
        window=attention_window(model_path),
        context=prepared.config.rollout.context_tokens,
    )


def make_sampler(
    prepared: PreparedRun,
    model_path: str,
    session: "RayRuntime | None" = None,
    *,
    debug_inline: bool = False,
) -> Sampler:
    """The config's sampler, loaded from `model_path`; `session` comes from `open_cluster`."""
    ids, _ = run_canary(prepared, model_path)
    sampler = sampler_for(
        model_path,
        prepared.tokenizer,
        prepared.config.rollout,
        canary_ids=ids,
        seed=prepared.config.seed,
        cluster=prepared.config.cluster,
        end_of_turn=prepared.config.sft.end_of_turn,
        lora=adapters_to_sync(prepared.config),
        on_gpu=None if session is None else session.on_gpu,
    )
    return with_turns(
        sampler, prepared.turns, in_step=prepared.config.deterministic, debug_inline=debug_inline
    )


def sampler_for(
    model_path: str,
    tokenizer: Tokenizer,
    rollout: RolloutConfig,
    *,
    canary_ids: Sequence[int],
    seed: int,
    cluster: ClusterConfig,
    end_of_turn: Sequence[str] = (),
    lora: LoraConfig | None = None,
    on_gpu: bool | None = None,
) -> "InnerSampler":
    """The sampler that `rollout` names, loaded from `model_path`.

    Answers end at the model's end tokens and those of `end_of_turn`.
    With `lora`, vLLM is sent only the adapters (see lora.adapters_to_sync). `on_gpu`: Ray's engines request
    GPUs (None: if there are any).
    """
    shared: dict[str, Any] = {
        "canary_ids": canary_ids,
        "end_ids": end_token_ids(tokenizer, model_path, end_of_turn),
    }
    if rollout.is_placed_by_ray:
        from verl_lite.engine.cluster.ray_sampler import RaySampler

        path = _findable(model_path)
        options = {"seed": seed, "lora": lora, "on_gpu": on_gpu, **shared}
        return RaySampler(path, tokenizer, rollout, cluster, **options)
    if rollout.sampler == "vllm-server":
        from verl_lite.engine.rollout.server_sampler import ServerSampler

        return ServerSampler(model_path, tokenizer, rollout, cluster, **shared)
    if rollout.sampler == "vllm":
        from verl_lite.engine.rollout.vllm_sampler import VllmSampler

        return VllmSampler(model_path, tokenizer, rollout, seed=seed, lora=lora, **shared)
    from verl_lite.engine.rollout.transformers_sampler import TransformersSampler

    device = default_device()
    model = load_policy(model_path, dtype="bfloat16" if device.type == "cuda" else "float32", device=device)
    return TransformersSampler(model, tokenizer, rollout, **shared)
