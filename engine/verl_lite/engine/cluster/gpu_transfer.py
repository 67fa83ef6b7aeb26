"""Weights from the learner's GPU to the engines' GPUs by vLLM's weight transfer: the trainer's side.

CUDA IPC if engines share the learner's GPU, NCCL broadcast otherwise. `vllm.distributed.weight_transfer`
moves the bytes; this file implements its source (the weights) and its client (the engines). vLLM's own Ray
client expects replicas of one engine with consecutive ranks; our engines each start at rank 0, so every
engine gets its own rank offset. vLLM 0.24 has today's engines' side, but for the trainer only functions; both
are used here, as the sources of 0.24.0 and 0.32.0 have them.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

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


Weights = Callable[[], Iterator[tuple[str, Tensor]]]


class Transfer(Protocol):
    """The trainer's half of a transfer."""

    def send_weights(self) -> None:
        """Send the current weights; when this returns, every engine has them."""

    def shutdown(self) -> None: ...


class WeightSender:
    """The learner's side, for a learner of one rank in this process. Engines must not step during `send`."""

    def __init__(
        self, backend: Backend, client: EngineClient, named_weights: Weights, *, num_engine_gpus: int
    ) -> None:
        where = ("", 0) if backend == "ipc" else rendezvous()
        make = _transfer if _has_trainer_side() else _older_transfer
        self._engine = make(backend, client, named_weights, where=where, world_size=1 + num_engine_gpus)

    def send(self) -> None:
        """Send the current weights; when this returns, every engine has them."""
        self._engine.send_weights()

    def close(self) -> None:
        self._engine.shutdown()


def _has_trainer_side() -> bool:
    """Whether vLLM has classes for the trainer's side; 0.24 has only functions."""
    import vllm.distributed.weight_transfer as module

    return hasattr(module, "WeightTransferTrainerFactory")


def _transfer(
    backend: Backend, client: EngineClient, named_weights: Weights, *, where: tuple[str, int], world_size: int
) -> Transfer:
    from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    if backend == "ipc":
        info: Any = IPCTrainerInitInfo(rank=0, packed=True)
    else:
        address, port = where
        info = NCCLTrainerInitInfo(rank=0, master_address=address, master_port=port, world_size=world_size)
    source = weight_source(named_weights)
    return WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)  # type: ignore[no-any-return]


def _older_transfer(
    backend: Backend, client: EngineClient, named_weights: Weights, *, where: tuple[str, int], world_size: int
) -> Transfer:
    if backend == "ipc":
        client.init_weight_transfer_engine({})
        return _OlderIpc(client, named_weights)
    address, port = where
    return _OlderNccl(client, named_weights, address=address, port=port, world_size=world_size)


@dataclass(frozen=True, slots=True)
class _OlderIpc:
    """CUDA IPC by the functions of vLLM 0.24."""

    client: EngineClient
    named_weights: Weights

    def send_weights(self) -> None:
        from vllm.distributed.weight_transfer.ipc_engine import (
            IPCTrainerSendWeightsArgs,
            IPCWeightTransferEngine,
        )

        self.client.start_weight_update()
        arguments = IPCTrainerSendWeightsArgs(
            send_mode=lambda info: self.client.update_weights(asdict(info)), packed=True
        )
        IPCWeightTransferEngine.trainer_send_weights(self.named_weights(), arguments)
        self.client.finish_weight_update()

    def shutdown(self) -> None:
        """Nothing is held."""


class _OlderNccl:
    """NCCL by the functions of vLLM 0.24: both sides must be called at once, so engines from a thread."""

    def __init__(
        self, client: EngineClient, named_weights: Weights, *, address: str, port: int, world_size: int
    ) -> None:
        from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

        self._client = client
        self._named_weights = named_weights
        self._thread = ThreadPoolExecutor(max_workers=1)
        group = {"master_address": address, "master_port": port, "world_size": world_size}
        joined = self._thread.submit(client.init_weight_transfer_engine, {**group, "rank_offset": 1})
        self._group = NCCLWeightTransferEngine.trainer_init(group)
        joined.result()

    def send_weights(self) -> None:
        from vllm.distributed.weight_transfer.nccl_engine import (
            NCCLTrainerSendWeightsArgs,
            NCCLWeightTransferEngine,
        )

        self._client.start_weight_update()
        described = [
            (n, str(t.dtype).removeprefix("torch."), list(t.shape)) for n, t in self._named_weights()
        ]
        names, dtypes, shapes = map(list, zip(*described, strict=True))
        info = {"names": names, "dtype_names": dtypes, "shapes": shapes, "packed": True}
        received = self._thread.submit(self._client.update_weights, info)
        arguments = NCCLTrainerSendWeightsArgs(group=self._group, packed=True)
        NCCLWeightTransferEngine.trainer_send_weights(self._named_weights(), arguments)
        received.result()
        self._client.finish_weight_update()

    def shutdown(self) -> None:
        self._thread.shutdown(wait=False)


def weight_source(named_weights: Callable[[], Iterator[tuple[str, Tensor]]]) -> Any:
    """The weights as vLLM's WeightSource: their metadata, and a new iteration per transfer."""
    from vllm.distributed.weight_transfer import ParamMeta, WeightSource

    class NamedWeights(WeightSource):  # type: ignore[misc]  # its base class is imported here
        def metadata(self) -> list[Any]:
            return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in named_weights()]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return named_weights()

    return NamedWeights()
