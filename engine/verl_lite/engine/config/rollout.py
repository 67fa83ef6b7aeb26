"""The `rollout` section of the config: sampler, batch size, and where engines run."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from verl_lite.engine.config.lora_sync import LoraSync
from verl_lite.plugins import SamplerSettings
from verl_lite.plugins.config_file import ConfigModel


class VllmConfig(ConfigModel):
    """How a vLLM engine is built.

    gpu_memory_utilization   fraction of GPU memory for vLLM while it generates
    sleep                    free the GPU for the learner during each update (GPU only)
    tensor_parallel_size     GPUs per engine
    kv_cache_gib             size of the KV cache on the CPU
    cpu_threads              CPU threads per engine placed by Ray
    quantization             fp8: weights and products of the sampler in 8 bits (GPU only), made anew from
                             every sync; the learner corrects for it (algorithm.importance)
    enforce_eager            true: without CUDA graphs
    prefix_caching           unset: on with a GPU; off on the CPU, where runs are bitwise repeatable
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gpu_memory_utilization: float = Field(default=0.5, gt=0, le=1)
    sleep: bool = True
    tensor_parallel_size: PositiveInt = 1
    kv_cache_gib: PositiveFloat = 1.0
    cpu_threads: PositiveInt = 1
    prefix_caching: bool | None = None
    quantization: Literal["fp8"] | None = None
    enforce_eager: bool | None = None


class ServerConfig(ConfigModel):
    """A running `vllm serve` of the config's model, for rollout.sampler: vllm-server.

    url          its address, such as http://localhost:8000
    api_key_env  the environment variable with its API key, if it needs one
    weights_dir  a folder that both sides see, for new weights; unset, the server keeps its weights, which
                 is enough for eval, rollout and diagnose, but not for train
    dtype        what it computes in; sets the canary's tolerance
    """

    url: str = Field(pattern=r"^https?://")
    api_key_env: str = "VLLM_API_KEY"
    weights_dir: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"


class RolloutConfig(ConfigModel):
    """One step samples `num_samples` completions of each of `num_prompts` prompts.

    `canary_tolerance` is the largest difference in log-probability (nats) allowed after a weight sync; unset,
    it follows from the sampler's dtype.

    placement            in_process: one engine in the trainer's process. disaggregated: Ray places the
                         engines on separate GPUs. colocated: Ray places them on the learner's GPUs,
                         and they sleep during updates. Unset: in_process for one engine, disaggregated
                         for more
    lora_sync            what vLLM gets under LoRA: only the adapters, or all weights with the adapters
                         merged in. auto: adapters on a GPU if vLLM supports them, else merged
    weight_transfer      how weights reach Ray's engines. object_store: through host memory, on every
                         platform. By vLLM between GPUs: nccl (disaggregated), ipc (colocated)
    max_context_tokens   of a trajectory of several turns: its prompt and everything after it. Unset:
                         max_prompt_tokens + max_new_tokens, of which the latter counts sampled tokens alone
    max_turn_tokens      tokens that one turn may sample; unset: as many as are left
    tool_parser          how the model writes tool calls: auto (by its chat template), a family, or vllm:NAME
    sequences_in_flight  sequences given to one of Ray's engines at once; it gets another when one ends.
                         Unset: twice as many as it works on at once
    """

    sampler: Literal["vllm", "vllm-server", "transformers"] = "vllm"
    num_engines: PositiveInt = 1
    placement: Literal["in_process", "disaggregated", "colocated"] | None = None
    weight_transfer: Literal["object_store", "nccl", "ipc"] = "object_store"
    sequences_in_flight: PositiveInt | None = None
    lora_sync: LoraSync = "auto"
    num_prompts: PositiveInt = 32
    num_samples: PositiveInt = 8
    max_prompt_tokens: PositiveInt = 512
    max_new_tokens: PositiveInt = 512
    max_context_tokens: PositiveInt | None = None
    max_turn_tokens: PositiveInt | None = None
    tool_parser: str = "auto"
    temperature: PositiveFloat = 1.0
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: NonNegativeInt = 0
    canary_tolerance: PositiveFloat | None = None
    vllm: VllmConfig = Field(default_factory=VllmConfig)
    server: ServerConfig | None = None

    @property
    def context_tokens(self) -> int:
        return self.max_context_tokens or self.max_prompt_tokens + self.max_new_tokens

    def settings(self, *, seed: int) -> SamplerSettings:
        """The sampler settings of a batch with this seed."""
        return SamplerSettings(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=self.max_new_tokens,
            seed=seed,
        )

    @property
    def is_placed_by_ray(self) -> bool:
        return self.num_engines > 1 or self.placement in ("disaggregated", "colocated")

    @property
    def shares_gpus(self) -> bool:
        """Whether engines use the learner's GPUs. An in-process engine uses the first GPU, as a rank does."""
        return self.placement == "colocated" or not self.is_placed_by_ray

    @property
    def engines_sleep(self) -> bool:
        """Whether engines free shared GPUs during updates."""
        return self.vllm.sleep and self.shares_gpus

    @property
    def placed_cpus(self) -> int:
        """CPUs that all engines together request from Ray."""
        return self.num_engines * self.vllm.cpu_threads if self.is_placed_by_ray else 0

    @model_validator(mode="after")
    def _coherent_engines(self) -> "RolloutConfig":
        if (self.sampler == "vllm-server") != (self.server is not None):
            state = "unset" if self.server is None else "set"
            raise ValueError(
                f"rollout.sampler={self.sampler} with rollout.server {state}: "
                "vllm-server needs to know where the server is (rollout.server.url), others do not"
            )
        if self.sampler != "vllm" and self.is_placed_by_ray:
            raise ValueError(
                f"rollout.num_engines={self.num_engines} and rollout.placement={self.placement} are for "
                f"vLLM engines placed by Ray, but rollout.sampler={self.sampler}"
            )
        if self.placement == "in_process" and self.num_engines > 1:
            raise ValueError(
                f"rollout.placement=in_process holds one engine, but rollout.num_engines={self.num_engines}: "
                "choose disaggregated or colocated"
            )
        if self.sampler != "vllm" and self.vllm.tensor_parallel_size > 1:
            raise ValueError(
                f"rollout.vllm.tensor_parallel_size={self.vllm.tensor_parallel_size} splits a vLLM engine "
                f"over GPUs, but rollout.sampler={self.sampler}"
            )
        wanted = {"nccl": "disaggregated", "ipc": "colocated"}.get(self.weight_transfer)
        if wanted is not None and self.placement != wanted:
            raise ValueError(
                f"rollout.weight_transfer={self.weight_transfer} is for rollout.placement={wanted}, "
                f"not {self.placement}"
            )
        if self.placement == "colocated" and not self.vllm.sleep:
            raise ValueError(
                "rollout.placement=colocated shares GPUs with the learner, but rollout.vllm.sleep=false "
                "would keep their memory during updates"
            )
        return self
