"""The parts of a run, as the config names them: each is chosen here, once, and imported only when chosen."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from verl_lite.engine.config.algorithm import LoraConfig
from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.engine.config.train import RolloutConfig, TrainConfig
from verl_lite.engine.learner.learner import Learner
from verl_lite.engine.model.end_tokens import end_token_ids
from verl_lite.engine.model.folder import default_device, load_policy, pad_token_id
from verl_lite.engine.model.lora import adapters_to_sync
from verl_lite.engine.observe.timeline import Timeline
from verl_lite.engine.preparation import PreparedRun
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.types import PolicyLearner, PromptRow, Sampler
from verl_lite.plugins.execution import Placement

__all__ = [
    "make_learner",
    "make_sampler",
    "make_timeline",
    "open_cluster",
    "place_for_ranks",
    "reward_actors",
    "sampler_for",
]

CANARY_TOKENS = 64


def open_cluster(config: TrainConfig) -> AbstractContextManager[Any]:
    """Ray, where something of the run is placed by it."""
    if not config.placed_cpus:
        return nullcontext()
    from verl_lite.engine.cluster.ray_runtime import RayRuntime

    return RayRuntime(config.cluster, cpus=config.placed_cpus)


def reward_actors(config: TrainConfig, session: Any) -> Placement | None:
    """The reward workers on the cluster, where the config wants any."""
    if not config.cluster.rewards.count:
        return None
    from verl_lite.engine.cluster.reward_actors import RewardActors

    return RewardActors(session.ray, config.cluster)


def place_for_ranks(config: TrainConfig, session: Any) -> AbstractContextManager[Any]:
    """What Ray keeps for the learner's ranks, before it places engines; None where it places no ranks."""
    if not config.ranks_placed_by_ray:
        return nullcontext()
    from verl_lite.engine.cluster.ray_ranks import reserve_placement_group

    timeout_s = config.cluster.start_timeout_s
    return reserve_placement_group(config.ranks_placed_by_ray, on_gpu=session.on_gpu, timeout_s=timeout_s)


def make_learner(prepared: PreparedRun, path: str, model: Any, place: Any = None) -> PolicyLearner:
    """The learner that trains `model`, or its ranks, each of which loads the weights in `path`.

    `place` is what `place_for_ranks` gave.
    """
    config = prepared.config
    if config.learner.num_ranks > 1:
        return _make_ranks(prepared, path, place)
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


def _make_ranks(prepared: PreparedRun, path: str, place: Any) -> PolicyLearner:
    """The learner as several processes: those torchrun started, or actors that Ray places."""
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
    if place is not None:
        from verl_lite.engine.cluster.ray_ranks import RayRanks

        transport = RayRanks(spec, config.cluster, place)
    else:
        from verl_lite.engine.cluster.torchrun_ranks import TorchrunRanks

        transport = TorchrunRanks(spec)
    return LearnerGroup(transport, config.algorithm)


def _findable(model_path: str) -> str:
    """A folder by its absolute path: Ray's processes run in another folder. Names of the hub stay."""
    return str(Path(model_path).absolute()) if Path(model_path).exists() else model_path


def _with_findable_critic(config: TrainConfig) -> TrainConfig:
    critic = config.algorithm.critic
    if critic is None or not critic.model:
        return config
    found = critic.model_copy(update={"model": _findable(critic.model)})
    return config.model_copy(update={"algorithm": config.algorithm.model_copy(update={"critic": found})})


def make_timeline(prepared: PreparedRun) -> Timeline | None:
    """Where the stages are noted, for runs in which one part may wait for another."""
    if prepared.config.asynchrony.mode == "sync" and not prepared.config.placed_cpus:
        return None
    resume_at = prepared.checkpoint.step if prepared.checkpoint else None
    return Timeline(prepared.folder.timeline, resume_at=resume_at)


def make_sampler(prepared: PreparedRun, model_path: str, session: Any = None) -> Sampler:
    """The sampler the config names, with the weights in `model_path`; `session` is what open_cluster gave."""
    return sampler_for(
        model_path,
        prepared.tokenizer,
        prepared.config.rollout,
        canary_prompt=prepared.train_prompts[0],
        seed=prepared.config.seed,
        cluster=prepared.config.cluster,
        end_of_turn=prepared.config.sft.end_of_turn,
        lora=adapters_to_sync(prepared.config),
        on_gpu=None if session is None else session.on_gpu,
    )


def sampler_for(
    model_path: str,
    tokenizer: Any,
    rollout: RolloutConfig,
    *,
    canary_prompt: PromptRow,
    seed: int,
    cluster: ClusterConfig,
    end_of_turn: Sequence[str] = (),
    lora: LoraConfig | None = None,
    on_gpu: bool | None = None,
) -> Sampler:
    """The sampler `rollout` names, with the weights in `model_path`; the prompt's tokens are its canary.

    Answers end at the tokens that the model's folder names, and at those of `end_of_turn`. With `lora` vLLM
    gets adapters alone (see lora.adapters_to_sync). `on_gpu`: whether engines that Ray places ask for GPUs;
    unset, where there are any.
    """
    shared: dict[str, Any] = {
        "canary_ids": list(canary_prompt.prompt_ids)[:CANARY_TOKENS],
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
