"""The Ray actors that reward workers run in: started together, replaced when lost, killed at the end."""

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.errors import ConfigError, RewardError, VerlLiteError
from verl_lite.plugins.execution.batcher import Call
from verl_lite.plugins.execution.host import HostAnswer, RewardHost
from verl_lite.plugins.execution.spec import Spec

CLOSE_TIMEOUT_S = 5.0
MAX_REQUESTS = 1000  # in flight per actor; its threads are created on demand


class _HostActor:
    """Runs in the actor. `open` is not part of the constructor, so that its errors keep their type."""

    def __init__(self, specs: Sequence[Spec], workers: int) -> None:
        self._specs, self._workers = specs, workers

    def open(self) -> None:
        self._host = RewardHost(self._specs, workers=self._workers)

    def score(self, component: int, calls: Sequence[Sequence[bytes]]) -> HostAnswer:
        return self._host.score(component, calls)

    def close(self) -> None:
        self._host.close()


@dataclass(slots=True)
class Request:
    """Calls of one component, sent to an actor together."""

    component: int
    calls: list[Call]
    sent_s: float


@dataclass(slots=True, eq=False)
class RewardActor:
    """One actor and its replacements. `in_flight` are its requests by serial number."""

    name: str
    handle: Any = None
    is_ready: bool = False
    launched_s: float = 0.0
    num_lost: int = 0
    in_flight: dict[int, Request] = field(default_factory=dict)

    def num_requests(self, components: Iterable[int]) -> int:
        wanted = set(components)
        return sum(request.component in wanted for request in self.in_flight.values())


class RewardPool:
    """`cluster.rewards.count` actors, each with `num_processes` worker processes."""

    def __init__(self, ray: Any, config: ClusterConfig, specs: Sequence[Spec]) -> None:
        self._ray = ray
        self._config = config
        self._specs = specs
        self.num_processes = max(1, int(config.rewards.cpus))
        self.actors = [RewardActor(f"reward worker {at}") for at in range(config.rewards.count)]

    @property
    def ready(self) -> list[RewardActor]:
        return [actor for actor in self.actors if actor.is_ready]

    def start(self) -> None:
        """Start all actors. Raises PluginError for rewards they cannot load, ConfigError without room."""
        opened = {self.launch(actor): actor for actor in self.actors}
        done, late = self._ray.wait(
            list(opened), num_returns=len(opened), timeout=self._config.start_timeout_s, fetch_local=False
        )
        for reference in done:
            try:
                self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                raise cause_of(error) from None
            except self._ray.exceptions.RayError as error:
                raise RewardError(f"{opened[reference].name} did not start: {error}") from None
            opened[reference].is_ready = True
        if late:
            raise ConfigError(self._no_room(len(late)))

    def launch(self, actor: RewardActor) -> Any:
        """Start a process for `actor`. Returns the reference of its `open` call."""
        rewards = self._config.rewards
        remote = self._ray.remote(
            num_cpus=rewards.cpus,
            num_gpus=rewards.gpus,
            max_concurrency=MAX_REQUESTS,
            scheduling_strategy="SPREAD",
        )(_HostActor)
        actor.handle = remote.remote(self._specs, self.num_processes)
        actor.is_ready, actor.launched_s = False, time.monotonic()
        return actor.handle.open.remote()

    def kill(self, actor: RewardActor) -> None:
        if actor.handle is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor.handle)

    def check_room(self) -> None:
        """Raise RewardError if no actor is ready and none could be placed within the timeout."""
        now, timeout_s = time.monotonic(), self._config.start_timeout_s
        if all(not actor.is_ready and now - actor.launched_s > timeout_s for actor in self.actors):
            raise RewardError(self._no_room(len(self.actors)))

    def close(self) -> None:
        """Stop all actors."""
        closing = [actor.handle.close.remote() for actor in self.ready]
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S) if closing else None
        for actor in self.actors:
            self.kill(actor)

    def _no_room(self, count: int) -> str:
        rewards, total = self._config.rewards, self._ray.cluster_resources()
        return (
            f"cluster.rewards.count={rewards.count}: {count} of them found no room within "
            f"cluster.start_timeout_s={self._config.start_timeout_s:g}; each asks for {rewards.cpus:g} CPUs "
            f"and {rewards.gpus:g} GPUs, the whole cluster has {total.get('CPU', 0):g} and "
            f"{total.get('GPU', 0):g}: lower count, cpus or gpus, or add nodes"
        )


def cause_of(error: Any) -> Exception:
    """The exception behind a RayTaskError: our own as it is, any other as a RewardError."""
    cause = error.cause
    return cause if isinstance(cause, VerlLiteError) else RewardError(f"in a reward worker: {error}")
