"""What a run requests from Ray, checked against the cluster before anything waits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.config.train import TrainConfig
from verl_lite.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """`count` actors of one kind, with `cpus` and `gpus` each; `setting` is the config key of the count."""

    setting: str
    count: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.setting}={self.count} of {self.cpus:g} CPU{gpus} each"


def resource_requests(config: TrainConfig, *, num_ranks: int, on_gpus: bool) -> list[ResourceRequest]:
    """One request per kind of actor; unless `on_gpus`, learner ranks and engines request no GPUs."""
    rollout, rewards = config.rollout, config.cluster.rewards
    requests = []
    if num_ranks:
        requests.append(ResourceRequest("learner.num_ranks", num_ranks, 1, int(on_gpus)))
    if rollout.is_placed_by_ray:
        engine = engine_resources(rollout, 0, on_gpu=on_gpus)
        cpus, gpus = engine["num_cpus"], engine.get("num_gpus", 0)
        requests.append(ResourceRequest("rollout.num_engines", rollout.num_engines, cpus, gpus))
    if rewards.count:
        requests.append(ResourceRequest("cluster.rewards.count", rewards.count, rewards.cpus, rewards.gpus))
    return requests


def check_capacity(
    config: TrainConfig, resources: Mapping[str, float], *, num_ranks: int, may_grow: bool
) -> str:
    """Compare the run's requests with `resources`, which is ray.cluster_resources().

    Returns a warning, "" if the cluster has enough. Raises ConfigError if it has too little and cannot grow
    (`may_grow`: nodes may still join).
    """
    requests = resource_requests(config, num_ranks=num_ranks, on_gpus=resources.get("GPU", 0) > 0)
    wanted = {
        "CPU": sum(request.count * request.cpus for request in requests),
        "GPU": sum(request.count * request.gpus for request in requests),
    }
    short = [kind for kind, amount in wanted.items() if amount > resources.get(kind, 0)]
    if not short:
        return ""
    totals = " and ".join(f"{wanted[kind]:g} {kind}s (Ray has {resources.get(kind, 0):g})" for kind in short)
    text = f"this run requests {totals}: {'; '.join(map(str, requests))}"
    if not may_grow:
        raise ConfigError(f"{text}. Lower one of these, or add nodes and name the cluster in cluster.address")
    limit = f"cluster.start_timeout_s={config.cluster.start_timeout_s:g}"
    return f"{text}. Waiting up to {limit} for nodes to join"


def engine_resources(config: RolloutConfig, index: int, *, on_gpu: bool) -> dict[str, Any]:
    """Ray's actor options for engine `index`: own GPUs, GPUs shared with the learner, or CPU threads."""
    threads, num_gpus = config.vllm.cpu_threads, config.vllm.tensor_parallel_size
    if not on_gpu:
        environment = {
            "OMP_NUM_THREADS": str(threads),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else engines bind to the same cores
        }
        return {"num_cpus": threads, "runtime_env": {"env_vars": environment}}
    if config.placement != "colocated":
        return {"num_cpus": threads, "num_gpus": num_gpus}
    # in Ray's accounting these GPUs are the learner's, so the engine requests none but sees them
    shared = ",".join(str(index * num_gpus + gpu) for gpu in range(num_gpus))
    return {
        "num_cpus": threads,
        "num_gpus": 0,
        "runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": shared}},
    }
