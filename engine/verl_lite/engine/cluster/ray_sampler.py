"""A Sampler on N vLLM engines placed by Ray: one queue of sequences, one copy of the weights in the store.

A sequence has the same seed as in-process, so its tokens do not depend on the engine. All methods are
thread-safe. Weights may be loaded while another thread generates: engines load them between two steps,
and rollouts carry a version per token.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from verl_lite.engine.cluster.engine_actor import EngineActor
from verl_lite.engine.cluster.engine_pool import EnginePool, PoolLimits, PoolStream
from verl_lite.engine.cluster.gpu_transfer import Backend, EngineClient, WeightSender
from verl_lite.engine.cluster.ray_engine import RayEngine
from verl_lite.engine.cluster.ray_runtime import RayRuntime
from verl_lite.engine.cluster.resources import engine_resources
from verl_lite.engine.cluster.weight_transfer import pack
from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.engine.config.learner import LoraConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.rollout.canary import Canary
from verl_lite.engine.rollout.streams import SequenceStream, StreamSampler
from verl_lite.engine.types import Tokenizer, WeightSource, weights_of
from verl_lite.errors import TrainingError
from verl_lite.plugins import SamplerSettings


class RaySampler(StreamSampler):
    """`rollout.num_engines` engines, in the Ray that is running or in a local one.

    `model_path` must be readable on the engines' nodes. `on_gpu`: engines request GPUs (None: if Ray has
    any). Raises TrainingError if an engine does not start.
    """

    def __init__(
        self,
        model_path: str,
        tokenizer: Tokenizer,
        config: RolloutConfig,
        cluster: ClusterConfig,
        *,
        canary_ids: Sequence[int],
        seed: int,
        end_ids: Sequence[int] = (),
        lora: LoraConfig | None = None,
        on_gpu: bool | None = None,
    ) -> None:
        super().__init__(tokenizer, end_ids)
        self.version = 0
        self._config = config
        self._sender: WeightSender | None = None
        self._runtime = RayRuntime(cluster, cpus=config.placed_cpus)
        self._runtime.__enter__()
        on_gpu = self._runtime.on_gpu if on_gpu is None else on_gpu
        resources = partial(engine_resources, config, on_gpu=on_gpu)
        arguments = {"model_path": model_path, "config": config, "seed": seed, "lora": lora}
        transfer = {"weight_transfer_config": {"backend": config.weight_transfer}}
        arguments["options"] = {} if config.weight_transfer == "object_store" else transfer
        self.pool = EnginePool(
            lambda index: RayEngine(EngineActor, resources(index), **arguments),
            num_engines=config.num_engines,
            limits=_limits(config, cluster),
        )
        engine = self._wait_for_start(cluster, resources(0))
        self._takes_adapters = bool(engine["takes_adapters"])
        self.canary = Canary(canary_ids, dtype=engine["dtype"], tolerance=config.canary_tolerance)

    def _wait_for_start(self, cluster: ClusterConfig, resources: Mapping[str, Any]) -> dict[str, Any]:
        """One engine's description, once all have started; closes the sampler on failure."""
        try:
            description: dict[str, Any] = self.pool.broadcast("describe")[0]
            return description
        except TrainingError as error:
            free = self._runtime.ray.available_resources()
            self.close()
            raise TrainingError(f"{error}. {_start_advice(self._config, cluster, resources, free)}") from None
        except BaseException:
            self.close()
            raise

    def stream(self, settings: SamplerSettings, check: Callable[[], None]) -> SequenceStream:
        return PoolStream(self.pool, check)

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """From the engine that answers first; all have the same weights."""
        logprobs: list[float] = self.pool.broadcast("token_logprobs", list(token_ids))[0]
        return logprobs

    def load_weights(self, source: WeightSource, *, version: int) -> float:
        """See Sampler.load_weights. Every engine passes the canary; returns the largest difference."""
        canary_ids = self.canary.token_ids
        check = partial(self.canary.compare, self.canary.expect(source), version=version)
        if self._config.weight_transfer == "object_store":
            weights = self._put(source, version)
            differences = self.pool.broadcast("load", weights, version, canary_ids, check=check, replay=True)
        else:
            self._send(source, self._config.weight_transfer)
            differences = self.pool.broadcast("weights_arrived", version, canary_ids, check=check)
        self.version = version
        return float(max(differences))

    def _put(self, source: WeightSource, version: int) -> Any:
        """A reference to the packed weights in Ray's object store."""
        if hasattr(source, "put_weights"):
            return source.put_weights(version)
        return self._runtime.ray.put(pack(weights_of(source, adapters=self._takes_adapters)))

    def _send(self, source: WeightSource, backend: Backend) -> None:
        """Send the weights by vLLM's weight transfer, while no engine steps."""
        gpus_per_engine = self._config.vllm.tensor_parallel_size
        with self.pool.paused() as engines:
            if self._sender is None:
                client = EngineClient(
                    [engine.actor for engine in engines if isinstance(engine, RayEngine)],
                    gpus_per_engine=gpus_per_engine,
                    wait=partial(self._runtime.ray.get, timeout=self.pool.limits.call_timeout_s),
                )
                num_engine_gpus = len(engines) * gpus_per_engine
                self._sender = WeightSender(
                    backend, client, source.checkpoint_weights, num_engine_gpus=num_engine_gpus
                )
            self._sender.send()

    @property
    def metrics(self) -> dict[str, float]:
        """Counts since the start; see docs/training.md."""
        return {
            "rollout/engine_restarts": float(self.pool.num_restarts),
            "rollout/sequences_again": float(self.pool.num_requeued),
        }

    def sleep(self) -> None:
        """Does nothing if engines have their own GPUs, so that no update waits for a replacement."""
        if self._config.engines_sleep:
            self.pool.broadcast("sleep")

    def wake(self) -> None:
        if self._config.engines_sleep:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # engines on the learner's GPU take memory from the driver
            self.pool.broadcast("wake")

    def close(self) -> None:
        """Kill the engines, and stop Ray if this sampler started it."""
        if self._sender is not None:
            self._sender.close()
        self.pool.close()
        self._runtime.__exit__()


def _limits(config: RolloutConfig, cluster: ClusterConfig) -> PoolLimits:
    return PoolLimits(
        start_timeout_s=cluster.start_timeout_s,
        call_timeout_s=cluster.engine_timeout_s,
        # vLLM's transfer has fixed members: a replacement could not receive weights
        max_restarts=cluster.max_restarts if config.weight_transfer == "object_store" else 0,
        in_flight=config.sequences_in_flight,
    )


def _start_advice(
    config: RolloutConfig, cluster: ClusterConfig, requested: Mapping[str, Any], free: Mapping[str, float]
) -> str:
    """What an engine requests, what Ray had free, and what to change."""
    return (
        f"Each of rollout.num_engines={config.num_engines} requests cpus: {requested['num_cpus']}, "
        f"gpus: {requested.get('num_gpus', 0)}; free were CPUs: {free.get('CPU', 0):g}, "
        f"GPUs: {free.get('GPU', 0):g}. If it waits for resources, lower the number; if it only starts "
        f"slowly, raise cluster.start_timeout_s={cluster.start_timeout_s:g}"
    )
