"""The Sampler protocol on N vLLM engines that Ray places: one queue of sequences, one put of the weights.

Every sequence has the seed it has in-process, so the tokens are the same whichever engine makes
them. All methods may be called from any thread; weights may be loaded while another thread
generates: engines take them in between two steps, and the rollouts carry a version a token.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from verl_lite.engine.canary import TOLERANCES, Canary
from verl_lite.engine.cluster.engine_actor import EngineActor
from verl_lite.engine.cluster.engine_pool import EnginePool, PoolLimits
from verl_lite.engine.cluster.ray_engine import RayEngine
from verl_lite.engine.cluster.session import RaySession
from verl_lite.engine.cluster.weight_transfer import pack
from verl_lite.engine.cluster_config import ClusterConfig
from verl_lite.engine.config import RolloutConfig
from verl_lite.engine.sequences import GroupBuilder
from verl_lite.engine.stages import PromptRow, WeightSource
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
    ) -> None:
        self._decode = partial(tokenizer.decode, skip_special_tokens=True)
        self._batch_numbers = itertools.count()
        self._version = 0
        limits = PoolLimits(
            start_timeout_s=cluster.start_timeout_s,
            call_timeout_s=cluster.engine_timeout_s,
            max_restarts=cluster.max_restarts,
            in_flight=config.sequences_in_flight,
        )
        arguments = {"model_path": model_path, "config": config, "seed": seed}
        resources = engine_resources(config)
        self._session = RaySession(cluster, cpus=config.placed_cpus)
        self._session.__enter__()
        self.pool = EnginePool(
            lambda index: RayEngine(EngineActor, resources, **arguments),
            num_engines=config.num_engines,
            limits=limits,
        )
        try:
            dtype = self.pool.each("describe")[0]["dtype"]
        except BaseException:
            self.close()
            raise
        self.canary = Canary(canary_ids, tolerance=config.canary_tolerance or TOLERANCES[dtype])

    @property
    def version(self) -> int:
        return self._version

    def generate(
        self, prompts: Sequence[PromptRow], *, num_samples: int, settings: SamplerSettings
    ) -> Iterator[list[Rollout]]:
        """See Sampler.generate. `settings.seed` is the batch's: each request's is derived from it."""
        groups = GroupBuilder(
            prompts,
            num_samples=num_samples,
            settings=settings,
            decode=self._decode,
            id_prefix=f"{next(self._batch_numbers)}/",
        )
        for finished in self.pool.run(groups.requests):
            if (group := groups.add(finished)) is not None:
                yield group

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """By the engine that answers first; they all have the same weights."""
        logprobs: list[float] = self.pool.each("token_logprobs", list(token_ids))[0]
        return logprobs

    def load_weights(self, source: WeightSource, *, version: int) -> float:
        """See Sampler.load_weights: every engine passes the canary; returns the largest difference of all."""
        import ray

        trained = source.token_logprobs(self.canary.token_ids)
        if hasattr(source, "put_weights"):
            weights = source.put_weights(version)
        else:
            weights = ray.put(pack(source.named_weights()))
        check = partial(self.canary.compare, trained, version=version)
        differences: list[float] = self.pool.each(
            "load", weights, version, self.canary.token_ids, check=check, keep=True
        )
        self._version = version
        return max(differences)

    @property
    def metrics(self) -> dict[str, float]:
        """Counts since the start; see docs/training.md."""
        return {
            "rollout/engine_restarts": float(self.pool.num_restarts),
            "rollout/sequences_again": float(self.pool.num_sequences_again),
        }

    def sleep(self) -> None:
        self.pool.each("sleep")

    def wake(self) -> None:
        self.pool.each("wake")

    def close(self) -> None:
        """End the engines, and Ray if it was started for them; the sampler cannot be used afterwards."""
        self.pool.close()
        self._session.__exit__(None, None, None)


def engine_resources(config: RolloutConfig) -> dict[str, Any]:
    """What one engine asks Ray for."""
    threads = config.vllm.cpu_threads
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # engines would bind to the same cores
    }
    return {"num_cpus": threads, "runtime_env": {"env_vars": environment}}
