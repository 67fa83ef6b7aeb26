"""Weights from the learner's GPU to the engines' GPUs by vLLM's weight transfer: the trainer's side.

CUDA IPC if engines share the learner's GPU, NCCL broadcast otherwise. `vllm.distributed.weight_transfer`
moves the bytes; this file implements its source (the weights) and its client (the engines). vLLM's own Ray
client expects replicas of one engine with consecutive ranks; our engines each start at rank 0, so every
engine gets its own rank offset.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from verl_lite.engine.cluster.nodes import rendezvous

Backend = Literal["ipc", "nccl"]


@dataclass(frozen=True, slots=True)
class EngineClient:
    """vLLM's VLLMWeightSyncClient over engine actors; `wait` resolves references within a deadline."""

    actors: Sequence[Any]
    gpus_per_engine: int
    wait: Callable[[list[Any]], list[Any]]

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        calls = []
        for index, actor in enumerate(self.actors):
            own = dict(init_info)
            if "rank_offset" in own:  # NCCL: one group, in which the learner is rank 0
                own["rank_offset"] += index * self.gpus_per_engine
            calls.append(actor.transfer.remote("init_weight_transfer_engine", {"init_info": own}))
        self.wait(calls)

    def start_weight_update(self) -> None:
        self._broadcast("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._broadcast("update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._broadcast("finish_weight_update")

    def _broadcast(self, method: str, *arguments: Any) -> None:
        self.wait([actor.transfer.remote(method, *arguments) for actor in self.actors])


class WeightSender:
    """The learner's side, for a learner of one rank in this process. Engines must not step during `send`."""

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
            address, port = rendezvous()
            info = NCCLTrainerInitInfo(
                rank=0, master_address=address, master_port=port, world_size=1 + num_engine_gpus
            )
        source = weight_source(named_weights)
        self._engine = WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)

    def send(self) -> None:
        """Send the current weights; when this returns, every engine has them."""
        self._engine.send_weights()

    def close(self) -> None:
        self._engine.shutdown()


def weight_source(named_weights: Callable[[], Iterator[tuple[str, Tensor]]]) -> Any:
    """The weights as vLLM's WeightSource: their metadata, and a new iteration per transfer."""
    from vllm.distributed.weight_transfer import ParamMeta, WeightSource

    class NamedWeights(WeightSource):  # type: ignore[misc]  # its base class is imported here
        def metadata(self) -> list[Any]:
            return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in named_weights()]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return named_weights()

    return NamedWeights()
