"""The Sampler protocol on N vLLM engines that Ray places: one queue of sequences, one put of the weights.

Every sequence has the seed it has in-process, so the tokens are the same whichever engine makes
them. All methods may be called from any thread; weights may be loaded while another thread
generates: engines take them in between two steps, and the rollouts carry a version a token.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from verl_lite.engine.cluster.engine_actor import EngineActor
from verl_lite.engine.cluster.engine_pool import EnginePool, PoolLimits
from verl_lite.engine.cluster.gpu_transfer import EngineClient, WeightSender
from verl_lite.engine.cluster.ray_engine import RayEngine
from verl_lite.engine.cluster.ray_runtime import RayRuntime
from verl_lite.engine.cluster.weight_transfer import pack
from verl_lite.engine.config.algorithm import LoraConfig
from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.engine.config.train import RolloutConfig
from verl_lite.engine.rollout.canary import TOLERANCES, Canary
from verl_lite.engine.rollout.requests import GroupBuilder
from verl_lite.engine.types import PromptRow, WeightSource, never_stop, weights_of
from verl_lite.errors import TrainingError
from verl_lite.plugins import Rollout, SamplerSettings

__all__ = ["RaySampler", "engine_resources"]


class RaySampler:
    """`rollout.num_engines` engines with the weights in `model_path`, in the run's Ray or one of its own.

    `model_path` must be readable where the engines run. Raises TrainingError when an engine does not start.
    """

    def __init__(
        self,
        model_path: str,
        tokenizer: Any,
        config: RolloutConfig,
        cluster: ClusterConfig,
        *,
        canary_ids: Sequence[int],
        seed: int,
        end_ids: Sequence[int] = (),
        lora: LoraConfig | None = None,
        on_gpu: bool | None = None,
    ) -> None:
        self._end_ids = end_ids
        self._decode = partial(tokenizer.decode, skip_special_tokens=True)
        self._batch_numbers = itertools.count()
        self._version = 0
        self._transfer = config.weight_transfer
        self._engines_sleep = config.engines_sleep
        self._gpus_per_engine = config.vllm.tensor_parallel_size
        self._sender: WeightSender | None = None
        options = (
            {}
            if self._transfer == "object_store"
            else {"weight_transfer_config": {"backend": self._transfer}}
        )
        arguments = {
            "model_path": model_path,
            "config": config,
            "seed": seed,
            "options": options,
            "lora": lora,
        }
        self._session = RayRuntime(cluster, cpus=config.placed_cpus)
        self._session.__enter__()
        asked = partial(engine_resources, config, on_gpu=self._session.on_gpu if on_gpu is None else on_gpu)
        self.pool = EnginePool(
            lambda index: RayEngine(EngineActor, asked(index), **arguments),
            num_engines=config.num_engines,
            limits=_limits(config, cluster),
        )
        try:
            engine = self.pool.each("describe")[0]
        except TrainingError as error:
            free = self._session.ray.available_resources()
            self.close()
            raise TrainingError(f"{error}. {_how_to_start(config, cluster, asked(0), free)}") from None
        except BaseException:
            self.close()
            raise
        self._takes_adapters = bool(engine["takes_adapters"])
        self.canary = Canary(canary_ids, tolerance=config.canary_tolerance or TOLERANCES[engine["dtype"]])

    @property
    def version(self) -> int:
        return self._version

    def generate(
        self,
        prompts: Sequence[PromptRow],
        *,
        num_samples: int,
        settings: SamplerSettings,
        check: Callable[[], None] = never_stop,
    ) -> Iterator[list[Rollout]]:
        """See Sampler.generate. `settings.seed` is the batch's: each request's is derived from it."""
        groups = GroupBuilder(
            prompts,
            num_samples=num_samples,
            settings=settings,
            decode=self._decode,
            end_ids=self._end_ids,
            id_prefix=f"{next(self._batch_numbers)}/",
        )
        for finished in self.pool.run(groups.requests, check=check):
            if (group := groups.add(finished)) is not None:
                yield group

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """By the engine that answers first; they all have the same weights."""
        logprobs: list[float] = self.pool.each("token_logprobs", list(token_ids))[0]
        return logprobs

    def load_weights(self, source: WeightSource, *, version: int) -> float:
        """See Sampler.load_weights: every engine passes the canary; returns the largest difference of all."""
        canary_ids = self.canary.token_ids
        check = partial(self.canary.compare, source.token_logprobs(canary_ids), version=version)
        if self._transfer == "object_store":
            weights = self._put(source, version)
            differences = self.pool.each("load", weights, version, canary_ids, check=check, keep=True)
        else:
            self._send(source)
            differences = self.pool.each("weights_arrived", version, canary_ids, check=check)
        self._version = version
        return float(max(differences))

    def _put(self, source: WeightSource, version: int) -> Any:
        """A reference to the packed weights in Ray's object store."""
        if hasattr(source, "put_weights"):
            return source.put_weights(version)
        return self._session.ray.put(pack(weights_of(source, adapters=self._takes_adapters)))

    def _send(self, source: WeightSource) -> None:
        """By vLLM's weight transfer, while no engine steps."""
        assert self._transfer != "object_store"
        with self.pool.paused() as engines:
            if self._sender is None:
                client = EngineClient(
                    [engine.actor for engine in engines if isinstance(engine, RayEngine)],
                    gpus_per_engine=self._gpus_per_engine,
                    wait=partial(self._session.ray.get, timeout=self.pool.limits.call_timeout_s),
                )
                self._sender = WeightSender(
                    self._transfer,
                    client,
                    source.named_weights,
                    num_engine_gpus=len(engines) * self._gpus_per_engine,
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
        """Engines with GPUs of their own are not asked: no update waits for one that is being replaced."""
        if self._engines_sleep:
            self.pool.each("sleep")

    def wake(self) -> None:
        if self._engines_sleep:
            self.pool.each("wake")

    def close(self) -> None:
        """End the engines, and Ray if it was started for them; the sampler cannot be used afterwards."""
        if self._sender is not None:
            self._sender.close()
        self.pool.close()
        self._session.__exit__(None, None, None)


def _limits(config: RolloutConfig, cluster: ClusterConfig) -> PoolLimits:
    return PoolLimits(
        start_timeout_s=cluster.start_timeout_s,
        call_timeout_s=cluster.engine_timeout_s,
        # vLLM's transfer has a fixed membership: nobody could give a replacement its weights
        max_restarts=cluster.max_restarts if config.weight_transfer == "object_store" else 0,
        in_flight=config.sequences_in_flight,
    )


def _how_to_start(
    config: RolloutConfig, cluster: ClusterConfig, asked: Mapping[str, Any], free: Mapping[str, float]
) -> str:
    """What an engine that did not start had asked for, beside what Ray had free."""
    return (
        f"Each of rollout.num_engines={config.num_engines} asks Ray for cpus: {asked['num_cpus']}, "
        f"gpus: {asked.get('num_gpus', 0)}; free were CPUs: {free.get('CPU', 0):g}, "
        f"GPUs: {free.get('GPU', 0):g}. Where it waits for a place lower the number; where it only starts "
        f"slowly raise cluster.start_timeout_s={cluster.start_timeout_s:g}"
    )


def engine_resources(config: RolloutConfig, index: int, *, on_gpu: bool) -> dict[str, Any]:
    """What the engine of this place asks Ray for: GPUs of its own, some of the learner's node, or threads."""
    threads, num_gpus = config.vllm.cpu_threads, config.vllm.tensor_parallel_size
    if not on_gpu:
        environment = {
            "OMP_NUM_THREADS": str(threads),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # engines would bind to the same cores
        }
        return {"num_cpus": threads, "runtime_env": {"env_vars": environment}}
    if config.placement != "colocated":
        return {"num_cpus": threads, "num_gpus": num_gpus}
    # the learner holds these GPUs in Ray's books, so the engine asks for none and is shown them
    shown = ",".join(str(index * num_gpus + gpu) for gpu in range(num_gpus))
    return {
        "num_cpus": threads,
        "num_gpus": 0,
        "runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": shown}},
    }
