"""What vLLM's weight transfer is asked and told; no GPU here, so no bytes move."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from verl_lite.engine.cluster import EngineClient, RaySampler, WeightSender, engine_resources, weight_source
from verl_lite.engine.config import RolloutConfig, VllmConfig

WEIGHTS = {"model.embed": torch.ones(4, 2), "model.layers.0.w": torch.zeros(3, dtype=torch.bfloat16)}


@dataclass
class FakeMethod:
    log: list[tuple[Any, ...]]

    def remote(self, *arguments: Any) -> tuple[Any, ...]:
        self.log.append(arguments)
        return arguments


@dataclass
class FakeActor:
    log: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def transfer(self) -> FakeMethod:
        return FakeMethod(self.log)


def client_of(actors: Sequence[FakeActor], waited: list[Any]) -> EngineClient:
    def wait(calls: list[Any]) -> list[Any]:
        waited.append(len(calls))
        return calls

    return EngineClient(actors, gpus_per_engine=2, wait=wait)


def test_every_engine_is_told_where_its_ranks_begin() -> None:
    actors, waited = [FakeActor(), FakeActor(), FakeActor()], []
    client = client_of(actors, waited)
    client.init_weight_transfer_engine({"rank_offset": 1, "world_size": 7})
    offsets = [actor.log[0][1]["init_info"]["rank_offset"] for actor in actors]
    assert offsets == [1, 3, 5]
    client.start_weight_update()
    client.update_weights({"names": ["w"]})
    client.finish_weight_update()
    assert [call[0] for call in actors[2].log] == [
        "init_weight_transfer_engine",
        "start_weight_update",
        "update_weights",
        "finish_weight_update",
    ]
    assert actors[0].log[2][1] == {"update_info": {"names": ["w"]}}
    assert waited == [3, 3, 3, 3]


def test_the_source_is_what_vllm_takes() -> None:
    from vllm.distributed.weight_transfer.base import WeightSource
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerWeightTransferEngine

    source = weight_source(lambda: iter(WEIGHTS.items()))
    assert isinstance(source, WeightSource)
    checked = NCCLTrainerWeightTransferEngine._checked_iter(source, source.metadata())
    assert [name for name, _ in checked] == list(WEIGHTS)
    assert [name for name, _ in source] == list(WEIGHTS)  # a fresh pass
    assert [names for names, _ in source.iter_groups()] == [["model.embed"], ["model.layers.0.w"]]


@pytest.mark.parametrize("backend", ["ipc", "nccl"])
def test_the_backend_is_begun_with_all_ranks(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.distributed.weight_transfer import WeightTransferTrainerFactory

    sent: list[str] = []

    class Engine:
        def send_weights(self) -> None:
            sent.append(backend)

        def shutdown(self) -> None:
            sent.append("closed")

    begun = {}

    def trainer_init(info: Any, *, client: Any, source: Any) -> Engine:
        begun.update(info=info, client=client, source=source)
        return Engine()

    monkeypatch.setattr(WeightTransferTrainerFactory, "trainer_init", trainer_init)
    monkeypatch.setattr("verl_lite.engine.cluster.gpu_transfer.rendezvous", lambda: ("node-0", 1234))
    client = client_of([FakeActor()], [])
    sender = WeightSender(backend, client, lambda: iter(WEIGHTS.items()), num_engine_gpus=6)
    sender.send()
    sender.close()
    assert sent == [backend, "closed"]
    info = begun["info"]
    assert (info.backend, info.is_sender) == (backend, True)
    assert begun["client"] is client
    if backend == "nccl":
        assert (info.master_address, info.master_port, info.world_size) == ("node-0", 1234, 7)


@pytest.mark.parametrize("backend", ["ipc", "nccl"])
def test_vllm_0_24_has_only_functions_on_the_trainers_side(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its signatures; for NCCL either side waits for the other, as the stand-ins here do."""
    import vllm.distributed.weight_transfer as package
    from vllm.distributed.weight_transfer import ipc_engine, nccl_engine

    told: list[tuple[str, Any]] = []
    met = {"init": Barrier(2, timeout=20), "send": Barrier(2, timeout=20)}

    @dataclass
    class Info:
        names: list[str]
        packed: bool = True

    class Ipc:
        @staticmethod
        def trainer_send_weights(iterator: Any, trainer_args: Any) -> None:
            assert trainer_args.packed
            for name, _ in iterator:
                trainer_args.send_mode(Info([name]))

    class Nccl:
        @staticmethod
        def trainer_init(init_info: dict[str, Any]) -> str:
            assert init_info == {"master_address": "node-0", "master_port": 1234, "world_size": 7}
            met["init"].wait()
            return "group"

        @staticmethod
        def trainer_send_weights(iterator: Any, trainer_args: Any) -> None:
            assert (trainer_args.group, trainer_args.packed) == ("group", True)
            assert [name for name, _ in iterator] == list(WEIGHTS)
            met["send"].wait()

    class Client(EngineClient):
        def _broadcast(self, method: str, *arguments: Any) -> None:
            told.append((method, *arguments))
            if backend == "nccl" and method == "update_weights":
                met["send"].wait()

        def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
            told.append(("init", init_info))
            if backend == "nccl":
                met["init"].wait()

    monkeypatch.delattr(package, "WeightTransferTrainerFactory")
    monkeypatch.setattr(ipc_engine, "IPCWeightTransferEngine", Ipc)
    monkeypatch.setattr(nccl_engine, "NCCLWeightTransferEngine", Nccl)
    for module, name in (
        (ipc_engine, "IPCTrainerSendWeightsArgs"),
        (nccl_engine, "NCCLTrainerSendWeightsArgs"),
    ):
        monkeypatch.setattr(module, name, SimpleNamespace, raising=False)
    monkeypatch.setattr("verl_lite.engine.cluster.gpu_transfer.rendezvous", lambda: ("node-0", 1234))
    client = Client([], gpus_per_engine=2, wait=list)
    sender = WeightSender(backend, client, lambda: iter(WEIGHTS.items()), num_engine_gpus=6)
    sender.send()
    sender.close()
    if backend == "ipc":
        info: list[Any] = [{"names": [name], "packed": True} for name in WEIGHTS]
        began: dict[str, Any] = {}
    else:
        shapes = [[4, 2], [3]]
        info = [
            {"names": list(WEIGHTS), "dtype_names": ["float32", "bfloat16"], "shapes": shapes, "packed": True}
        ]
        began = {"master_address": "node-0", "master_port": 1234, "world_size": 7, "rank_offset": 1}
    updates = [("update_weights", {"update_info": one}) for one in info]
    assert told == [("init", began), ("start_weight_update",), *updates, ("finish_weight_update",)]


def test_what_an_engine_asks_of_the_cluster() -> None:
    vllm = VllmConfig(tensor_parallel_size=2, cpu_threads=3)
    apart = RolloutConfig(num_engines=2, vllm=vllm)
    on_cpu = engine_resources(apart, 1, on_gpu=False)
    assert on_cpu["num_cpus"] == 3
    assert on_cpu["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3"
    assert engine_resources(apart, 1, on_gpu=True) == {"num_cpus": 3, "num_gpus": 2}
    together = RolloutConfig(num_engines=2, placement="colocated", vllm=vllm)
    shared = engine_resources(together, 1, on_gpu=True)
    assert (shared["num_gpus"], shared["runtime_env"]["env_vars"]) == (0, {"CUDA_VISIBLE_DEVICES": "2,3"})


def test_only_engines_that_share_gpus_with_the_learner_sleep_during_updates() -> None:
    assert RolloutConfig().engines_sleep
    assert RolloutConfig(num_engines=2, placement="colocated").engines_sleep
    assert not RolloutConfig(num_engines=2).engines_sleep
    assert not RolloutConfig(placement="disaggregated").engines_sleep
    assert not RolloutConfig(vllm=VllmConfig(sleep=False)).engines_sleep
    asked: list[str] = []
    for sleeps in (False, True):
        sampler = object.__new__(RaySampler)
        sampler._config = RolloutConfig(vllm=VllmConfig(sleep=sleeps))
        sampler.pool = SimpleNamespace(broadcast=asked.append)
        sampler.sleep()
        sampler.wake()
    assert asked == ["sleep", "wake"]


@pytest.mark.parametrize(
    ("transfer", "placement", "is_fine"),
    [
        ("nccl", "disaggregated", True),
        ("ipc", "colocated", True),
        ("nccl", "colocated", False),
        ("ipc", "disaggregated", False),
        ("nccl", None, False),
    ],
)
def test_a_transfer_goes_with_its_placement(transfer: Any, placement: Any, is_fine: bool) -> None:
    def make() -> RolloutConfig:
        return RolloutConfig(num_engines=2, placement=placement, weight_transfer=transfer)

    if is_fine:
        assert make().weight_transfer == transfer
        return
    with pytest.raises(ValueError, match=rf"rollout\.weight_transfer={transfer} is for rollout\.placement="):
        make()
