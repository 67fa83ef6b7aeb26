"""The `rollout` section of the config: sampler, batch size, and where engines run."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from verl_lite.engine.config.lora_sync import LoraSync
from verl_lite.plugins import SamplerSettings
from verl_lite.plugins.config_file import ConfigModel


class VllmConfig(ConfigModel):
    """How a vLLM engine is built."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the engine computes in; auto: the type of the model's weights."""
    gpu_memory_utilization: float = Field(default=0.5, gt=0, le=1)
    """Fraction of the GPU's memory for vLLM while it generates. Lower it if the learner does not fit beside
    it."""
    sleep: bool = True
    """Free the GPU for the learner during each update (GPU only)."""
    tensor_parallel_size: PositiveInt = 1
    """GPUs per engine, for models that do not fit one."""
    kv_cache_gib: PositiveFloat = 1.0
    """Size of the KV cache on the CPU, in GiB."""
    cpu_threads: PositiveInt = 1
    """CPU threads per engine placed by Ray."""
    prefix_caching: bool | None = None
    """Keep the KV cache of common prefixes. Unset: on with a GPU; off on the CPU, where runs are bitwise
    repeatable."""
    quantization: Literal["fp8"] | None = None
    """fp8: weights and products of the sampler in 8 bits (GPU only), made anew from every sync; needs
    algorithm.importance against the difference to the learner."""
    enforce_eager: bool | None = None
    """Run without CUDA graphs: slower, starts faster, needs less memory. Unset: vLLM's default."""


class ServerConfig(ConfigModel):
    """A running `vllm serve` of the config's model, for rollout.sampler: vllm-server."""

    url: str = Field(pattern=r"^https?://")
    """Its address, such as http://localhost:8000."""
    api_key_env: str = "VLLM_API_KEY"
    """The environment variable with its API key, if it needs one."""
    weights_dir: str | None = None
    """A folder that both sides see, for new weights. Unset, the server keeps its weights, which is enough for
    eval, rollout and diagnose, but not for train."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """What the server computes in; sets the canary's tolerance."""


class RolloutConfig(ConfigModel):
    """One step samples `num_samples` completions of each of `num_prompts` prompts.

    `canary_tolerance` is the largest difference in log-probability (nats) allowed after a weight sync; unset,
    it follows from the sampler's dtype.
    """

    sampler: Literal["vllm", "vllm-server", "transformers"] = "vllm"
    """What samples: vLLM in this process (or placed by Ray), a running `vllm serve`, or transformers (slow;
    needs no vLLM)."""
    num_engines: PositiveInt = 1
    """Number of vLLM engines; more than one are placed by Ray."""
    placement: Literal["in_process", "disaggregated", "colocated"] | None = None
    """in_process: one engine in the trainer's process. disaggregated: Ray's engines on GPUs of their own.
    colocated: Ray's engines on the learner's GPUs, asleep during updates. Unset: in_process for one
    engine, disaggregated for more."""
    weight_transfer: Literal["object_store", "nccl", "ipc"] = "object_store"
    """How weights reach Ray's engines: object_store through host memory on every platform; between GPUs nccl
    (disaggregated) or ipc (colocated)."""
    sequences_in_flight: PositiveInt | None = None
    """Sequences given to one of Ray's engines at once. Unset: twice as many as it works on at once."""
    lora_sync: LoraSync = "auto"
    """What vLLM gets under LoRA: only the adapters, or all weights with the adapters merged in. auto:
    adapters on a GPU if vLLM supports them, else merged."""
    num_prompts: PositiveInt = 32
    """Prompts per step; times num_samples is the batch. More gives a steadier gradient and slower steps."""
    num_samples: PositiveInt = 8
    """Completions per prompt, the group whose mean is the baseline. Group advantages need 2 or more; 8 to 16
    are usual."""
    max_prompt_tokens: PositiveInt = 512
    """Longest prompt in tokens; data.train.overlong says what a longer one is."""
    max_new_tokens: PositiveInt = 512
    """Longest completion in tokens; beyond, it is cut (finish reason "length")."""
    max_context_tokens: PositiveInt | None = None
    """Longest trajectory of several turns, its prompt and everything after it, in tokens. Unset:
    max_prompt_tokens and max_new_tokens together."""
    max_turn_tokens: PositiveInt | None = None
    """Tokens that one turn may sample; unset: as many as are left."""
    tool_parser: str = "auto"
    """How the model writes tool calls: auto (by its chat template), a family, or vllm:NAME."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature. 1.0 trains on the model's own distribution; others are corrected in the
    log-probabilities."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample only from the most likely tokens whose probabilities sum to this. Below 1 the sampler's
    distribution is not the learner's; leave it in training."""
    top_k: NonNegativeInt = 0
    """Sample only from this many most likely tokens; 0: all. As top_p, leave it off in training."""
    canary_tolerance: PositiveFloat | None = None
    """Largest difference in log-probability (nats) allowed after a weight sync. Unset: it follows from the
    sampler's dtype."""
    vllm: VllmConfig = Field(default_factory=VllmConfig)
    """How a vLLM engine is built."""
    server: ServerConfig | None = None
    """The running server, for sampler: vllm-server."""

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
