"""Weights from the learner's GPU to the engines' by vLLM's own transfer engines: the trainer's end.

CUDA IPC where an engine shares its GPU with the learner, NCCL broadcast otherwise. What moves the
bytes is `vllm.distributed.weight_transfer`; here is only what it asks of us: the weights as one of its
sources, and the engines as one of its clients. Its own Ray client is for replicas of one engine that
count their ranks on; ours start at rank 0 each, so every engine is told where its ranks begin.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from torch import Tensor

__all__ = ["EngineClient", "WeightSender", "weight_source"]

Backend = Literal["ipc", "nccl"]


class EngineClient:
    """vLLM's VLLMWeightSyncClient over engine actors, each of `gpus_per_engine` GPUs.

    `wait` takes references and returns their values, with the deadline of the run.
    """

    def __init__(
        self, actors: Sequence[Any], *, gpus_per_engine: int, wait: Callable[[list[Any]], list[Any]]
    ) -> None:
        self._actors = actors
        self._gpus_per_engine = gpus_per_engine
        self._wait = wait

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        calls = []
        for index, actor in enumerate(self._actors):
            own = dict(init_info)
            if "rank_offset" in own:  # NCCL: ranks of one group, the learner's 0 first
                own["rank_offset"] += index * self._gpus_per_engine
            calls.append(actor.transfer.remote("init_weight_transfer_engine", {"init_info": own}))
        self._wait(calls)

    def start_weight_update(self) -> None:
        self._all("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._all("update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._all("finish_weight_update")

    def _all(self, method: str, *arguments: Any) -> None:
        self._wait([actor.transfer.remote(method, *arguments) for actor in self._actors])


class WeightSender:
    """The learner's end, for a learner of one rank in this process. The engines must not step meanwhile."""

    def __init__(
        self,
        backend: Backend,
        client: EngineClient,
        named_weights: Callable[[], Iterator[tuple[str, Tensor]]],
        *,
        num_engine_gpus: int,
    ) -> None:
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        if backend == "ipc":
            info: Any = IPCTrainerInitInfo(rank=0, packed=True)
        else:
            address, port = _meeting_place()
            info = NCCLTrainerInitInfo(
                rank=0, master_address=address, master_port=port, world_size=1 + num_engine_gpus
            )
        source = weight_source(named_weights)
        self._engine = WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)

    def send(self) -> None:
        """Every engine has the weights of now when this returns."""
        self._engine.send_weights()

    def close(self) -> None:
        self._engine.shutdown()


def weight_source(named_weights: Callable[[], Iterator[tuple[str, Tensor]]]) -> Any:
    """The weights as vLLM's WeightSource: a fresh pass each round, and what it will hold."""
    from vllm.distributed.weight_transfer import ParamMeta, WeightSource

    class NamedWeights(WeightSource):  # type: ignore[misc]  # its base is only known inside
        def metadata(self) -> list[Any]:
            return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in named_weights()]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return named_weights()

    return NamedWeights()


def _meeting_place() -> tuple[str, int]:
    """This node's address as the other nodes know it, and a port that is free on it."""
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        return str(ray.util.get_node_ip_address()), int(probe.getsockname()[1])
