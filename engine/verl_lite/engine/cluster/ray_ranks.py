"""Learner ranks as Ray actors, one process each, in one torch.distributed process group.

On a cluster with GPUs each rank gets one GPU (NCCL); without GPUs, ranks run on CPUs (gloo).
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from verl_lite.engine.cluster.nodes import rendezvous, write_probe_file
from verl_lite.engine.cluster.rank_worker import LearnerSpec, RankWorker
from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.errors import ConfigError, RankLost, VerlLiteError

GRACE_S = 5.0  # after one rank failed: how long to wait for the cause on another


class RankActor:
    """Runs in the actor's process."""

    def address(self) -> tuple[str, int]:
        """The rendezvous of the ranks, on this actor's node."""
        return rendezvous()

    def join(
        self,
        spec: LearnerSpec,
        rank: int,
        address: tuple[str, int],
        timeout_s: float,
        *,
        on_gpu: bool,
        probe: Path,
    ) -> int:
        """Join the process group and create the learner. Returns the process id.

        Raises ConfigError if `probe`, a file the driver wrote into the run folder, is not on this node.
        """
        if not probe.is_file():
            raise ConfigError(
                f"the run folder {spec.run_dir} is not on {socket.gethostname()}, where a learner rank "
                "runs: name one that all nodes share with --run-dir"
            )
        size = spec.config.learner.num_ranks
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            init_method=f"tcp://{address[0]}:{address[1]}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout_s),
        )
        self._rank = rank
        self._worker = RankWorker(spec, torch.device("cuda", 0) if on_gpu else torch.device("cpu"))
        return os.getpid()

    def call(self, method: str, args: Sequence[Any]) -> Any:
        result = getattr(self._worker, method)(*args)
        return result if self._rank == 0 else None

    def put(self, method: str) -> list[Any]:
        import ray

        return [ray.put(result)] if (result := self.call(method, ())) is not None else []


class RayRanks:
    """A Transport over ranks in `placement_group`, from `reserve_placement_group`."""

    def __init__(self, spec: LearnerSpec, cluster: ClusterConfig, placement_group: Any) -> None:
        import ray

        self._ray = ray
        self._timeout_s = cluster.call_timeout_s
        size = spec.config.learner.num_ranks
        gpus = int(placement_group.bundle_specs[0].get("GPU", 0))
        actor = ray.remote(RankActor)
        strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(placement_group)
        options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "scheduling_strategy": strategy}
        self._actors = [actor.options(**options).remote() for _ in range(size)]
        probe = write_probe_file(spec.run_dir)
        try:
            (address,) = self._wait([self._actors[0].address.remote()], cluster.start_timeout_s)
            joining = [
                one.join.remote(spec, rank, address, cluster.call_timeout_s, on_gpu=gpus > 0, probe=probe)
                for rank, one in enumerate(self._actors)
            ]
            self.process_ids: list[int] = self._wait(joining, self._timeout_s)
        except BaseException:
            self.close()
            raise
        finally:
            probe.unlink(missing_ok=True)

    def call(self, method: str, *args: Any) -> Any:
        return self.start(method, *args)()

    def start(self, method: str, *args: Any) -> Callable[[], Any]:
        shared = self._ray.put(args)  # stored once for all ranks
        references = [actor.call.remote(method, shared) for actor in self._actors]
        return lambda: self._wait(references, self._timeout_s)[0]

    def put(self, method: str) -> Any:
        return self._wait([actor.put.remote(method) for actor in self._actors], self._timeout_s)[0][0]

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []

    def _wait(self, references: Sequence[Any], timeout_s: float) -> list[Any]:
        """The results of all ranks; raises as soon as one fails."""
        results: dict[Any, Any] = {}
        pending, deadline = list(references), time.monotonic() + timeout_s
        while pending:
            left_s = max(deadline - time.monotonic(), 0.0)
            done, pending = self._ray.wait(pending, num_returns=1, timeout=left_s)
            if not done:
                raise RankLost(
                    f"a learner rank did not answer within {timeout_s:g} s (cluster.call_timeout_s)"
                )
            try:
                results[done[0]] = self._ray.get(done[0])
            except Exception as error:
                raise self._cause(error, pending) from error
        return [results[reference] for reference in references]

    def _cause(self, error: Exception, pending: Sequence[Any]) -> Exception:
        """The error behind `error`: a dead rank fails the others' collectives first."""
        errors = [error]
        if pending:
            done, _ = self._ray.wait(list(pending), num_returns=len(pending), timeout=GRACE_S)
            errors += [found for one in done if (found := self._error(one)) is not None]
        if any(isinstance(one, self._ray.exceptions.RayActorError) for one in errors):
            return RankLost("a learner rank died; training continues from the last checkpoint with new ranks")
        causes = [getattr(one, "cause", None) for one in errors]
        return next((cause for cause in causes if isinstance(cause, VerlLiteError)), error)

    def _error(self, reference: Any) -> Exception | None:
        try:
            self._ray.get(reference)
        except Exception as error:  # noqa: BLE001  a rank may raise anything
            return error
        return None


@contextmanager
def reserve_placement_group(num_ranks: int, *, on_gpu: bool, timeout_s: float) -> Iterator[Any]:
    """A placement group with a bundle per rank, on as few nodes as possible.

    Ray must be initialised. Raises ConfigError if the bundles cannot be reserved in `timeout_s`.
    """
    import ray

    bundle = {"CPU": 1, "GPU": 1} if on_gpu else {"CPU": 1}
    group = ray.util.placement_group([bundle] * num_ranks, strategy="PACK")
    try:
        if not group.wait(timeout_s):
            requested = ", ".join(f"{count} {name}" for name, count in bundle.items())
            total, free = ray.cluster_resources(), ray.available_resources()
            kinds = ", ".join(f"{total.get(k, 0):g} {k} ({free.get(k, 0):g} free)" for k in bundle)
            raise ConfigError(
                f"learner.num_ranks={num_ranks}: the cluster had no room for ranks of {requested} each "
                f"within {timeout_s:g} s (cluster.start_timeout_s); it has {kinds}"
            )
        yield group
    finally:
        ray.util.remove_placement_group(group)
