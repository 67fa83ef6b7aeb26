"""What the parts of a run ask Ray for beside what the cluster has: said before anything waits for a place."""

from collections.abc import Mapping
from dataclasses import dataclass

from verl_lite.engine.cluster.ray_sampler import engine_resources
from verl_lite.engine.config.train import TrainConfig
from verl_lite.errors import ConfigError

__all__ = ["Ask", "asks_of", "check_room"]


@dataclass(frozen=True, slots=True)
class Ask:
    """`count` actors of a kind, each with so many CPUs and GPUs; `setting` is what changes the count."""

    setting: str
    count: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.setting}={self.count} of {self.cpus:g} CPU{gpus} each"


def asks_of(config: TrainConfig, *, num_ranks: int, on_gpus: bool) -> list[Ask]:
    """Without GPUs (`on_gpus` false) learner ranks and engines ask for none."""
    rollout, rewards = config.rollout, config.cluster.rewards
    asks = []
    if num_ranks:
        asks.append(Ask("learner.num_ranks", num_ranks, 1, int(on_gpus)))
    if rollout.is_placed_by_ray:
        engine = engine_resources(rollout, 0, on_gpu=on_gpus)
        cpus, gpus = engine["num_cpus"], engine.get("num_gpus", 0)
        asks.append(Ask("rollout.num_engines", rollout.num_engines, cpus, gpus))
    if rewards.count:
        asks.append(Ask("cluster.rewards.count", rewards.count, rewards.cpus, rewards.gpus))
    return asks


def check_room(config: TrainConfig, resources: Mapping[str, float], *, num_ranks: int, may_grow: bool) -> str:
    """`resources` is ray.cluster_resources(). Returns what to say; "" where the cluster has enough.

    Raises ConfigError where it has not and will not get it. One that exists (`may_grow`) may get nodes yet.
    """
    asks = asks_of(config, num_ranks=num_ranks, on_gpus=resources.get("GPU", 0) > 0)
    wanted = {
        "CPU": sum(ask.count * ask.cpus for ask in asks),
        "GPU": sum(ask.count * ask.gpus for ask in asks),
    }
    short = [kind for kind, amount in wanted.items() if amount > resources.get(kind, 0)]
    if not short:
        return ""
    totals = " and ".join(f"{wanted[kind]:g} {kind}s of {resources.get(kind, 0):g}" for kind in short)
    text = f"this run asks Ray for {totals} that it has: {'; '.join(map(str, asks))}"
    if not may_grow:
        raise ConfigError(f"{text}. Lower one of these, or add nodes and name the cluster in cluster.address")
    limit = f"cluster.start_timeout_s={config.cluster.start_timeout_s:g}"
    return f"{text}. Waiting up to {limit} for nodes to join"
