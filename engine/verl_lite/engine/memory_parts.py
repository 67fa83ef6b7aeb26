"""The uses of memory of a run, by what holds them.

Weights, moments and KV cache are exact. Activations are what autograd keeps for a decoder layer of the
Llama and Qwen families: KEPT bytes per token, counted with saved-tensor hooks on our policy (and checked by
the tests of the memory plan).
"""

from dataclasses import dataclass, replace
from typing import Literal

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.model.shape import ModelShape
from verl_lite.engine.rollout.transformers_sampler import BATCH_ROWS

GIB = 2**30
PROCESS_BYTES = GIB  # CUDA context, kernels, fragmentation
CPU_PROCESS_BYTES = 0.6 * GIB  # Python, torch, transformers
CPU_VLLM_BYTES = 0.7 * GIB  # vLLM's modules, and its working memory
ENGINE_WORK_BYTES = 2 * GIB  # vLLM's activations of a full batch of prefill tokens, CUDA graphs, logits
# bytes that autograd keeps per token and layer, for each hidden, query, key and MLP unit
KEPT = {"float32": (24, 22, 24, 16), "bfloat16": (26, 13, 12, 8)}
KEPT_AT_ENDS = 16  # bytes per token and hidden unit: embedding, last norm, input of the head
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Part:
    """One use of memory; `rests`: it stays on the GPU while the engine generates."""

    name: str
    num_bytes: float
    rests: bool = False


def activation_bytes(
    shape: ModelShape,
    num_tokens: int,
    *,
    dtype: str,
    gradient_checkpointing: bool | Literal["selective"],
    offload: bool = False,
) -> float:
    """Peak bytes that autograd keeps for a micro-batch of `num_tokens` tokens.

    Checkpointing keeps the input of every layer (with `offload` on the CPU) and one layer computed again;
    selective checkpointing also the results of its seven products and of attention.
    """
    hidden, query, key, mlp = KEPT[dtype]
    query_size, key_size = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    layer = hidden * shape.hidden_size + query * query_size + key * key_size + mlp * shape.intermediate_size
    ends = KEPT_AT_ENDS * shape.hidden_size
    if not gradient_checkpointing:
        return float(num_tokens * (layer * shape.num_layers + ends))
    between = 0.0 if offload else 4.0 * shape.hidden_size
    if gradient_checkpointing == "selective":
        products = 2 * (query_size + key_size + shape.hidden_size + shape.intermediate_size)
        between += BYTES[dtype] * products
    return float(num_tokens * (between * shape.num_layers + layer + ends))


def learner_parts(config: TrainConfig, shape: ModelShape, *, on_gpu: bool) -> list[Part]:
    """What one rank holds."""
    learner, optimizer = config.learner, config.learner.optimizer
    shards = learner.num_ranks if learner.parallel == "fsdp" else 1
    lora, total = learner.lora, shape.num_parameters
    trained = total if lora is None else shape.num_lora_parameters(lora.rank)
    base_bytes = 4.0 if lora is None else 0.5 if lora.quantize else float(BYTES[config.model.dtype])
    weights = base_bytes * total + (4.0 * trained if lora is not None else 0.0)
    moments = 0.0 if optimizer.offload and on_gpu else (2.0 if optimizer.bits == 8 else 8.0) * trained
    parts = [
        Part("weights", weights / shards, rests=True),
        Part("gradients", 4.0 * trained / shards),
        Part("optimiser", moments / shards, rests=True),
    ]
    kl = config.algorithm.kl
    if kl.reference == "ema" or (kl.coefficient and kl.reference == "copy"):
        parts.append(Part("reference", weights / shards, rests=True))
    if config.algorithm.critic is not None:
        parts.append(Part("critic", (4.0 + 4.0 + 8.0) * total / shards, rests=True))
    if learner.dtype == "bfloat16" or shards > 1:
        whole = 2 * shape.layer_parameters  # FSDP gathers two layers at a time
        if shards == 1:
            whole = total if lora is None else trained + _cast_of_base(config, shape)
        parts.append(Part("weights to compute with", (2.0 if learner.dtype == "bfloat16" else 4.0) * whole))
    tokens = max(learner.max_tokens_per_micro_batch, config.rollout.context_tokens)
    kept = activation_bytes(
        shape,
        tokens,
        dtype=learner.dtype,
        gradient_checkpointing=learner.gradient_checkpointing,
        offload=learner.offload_activations and on_gpu,
    )
    parts.append(Part(f"activations of {tokens} tokens", kept))
    parts.append(Part("logits", 3.0 * learner.logits_tile(on_gpu=on_gpu) * 2**20))
    return parts


def _cast_of_base(config: TrainConfig, shape: ModelShape) -> int:
    """Number of LoRA base weights cast for computing: none if they are bfloat16 already."""
    if config.learner.is_quantized:
        return shape.layer_parameters  # an upper bound: one matrix at a time
    return 0 if config.model.dtype == "bfloat16" else shape.num_parameters


def transformers_parts(config: TrainConfig, shape: ModelShape, *, dtype: str) -> list[Part]:
    rows = min(config.rollout.num_prompts * config.rollout.num_samples, BATCH_ROWS)
    one = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * config.rollout.context_tokens
    return [
        Part("sampler's weights", float(BYTES[dtype] * shape.num_parameters), rests=True),
        Part(f"KV cache of {rows} sequences", float(BYTES[dtype] * one * rows)),
    ]


def sequence_bytes(config: TrainConfig, shape: ModelShape) -> float:
    """KV cache bytes of one full-length sequence per GPU, which has at least one key head."""
    heads = -(-shape.num_kv_heads // config.rollout.vllm.tensor_parallel_size)
    bytes_per_token = 2 * shape.num_layers * heads * shape.head_dim * BYTES[engine_dtype(config)]
    return float(bytes_per_token * config.rollout.context_tokens)


def engine_dtype(config: TrainConfig) -> str:
    dtype = config.rollout.vllm.dtype
    return "bfloat16" if dtype == "auto" else dtype  # "auto" reads float32 weights as half precision


def cpu_sampler_parts(config: TrainConfig, shape: ModelShape) -> list[Part]:
    """What samplers hold on the CPU, where vLLM packs output heads, also tied ones, into copies."""
    rollout = config.rollout
    if rollout.sampler == "vllm-server":  # it runs elsewhere
        return []
    if rollout.sampler == "transformers":
        return transformers_parts(config, shape, dtype="float32")
    size = BYTES["float32" if rollout.vllm.dtype == "auto" else rollout.vllm.dtype]
    weights = float(size * (shape.num_parameters + shape.vocab_size * shape.hidden_size))
    process = CPU_VLLM_BYTES + (CPU_PROCESS_BYTES if rollout.is_placed_by_ray else 0.0)
    parts = [
        Part("vLLM's weights", weights, rests=True),
        Part("KV cache when full", rollout.vllm.kv_cache_gib * GIB, rests=True),
        Part("vLLM", process, rests=True),
    ]
    return [replace(part, num_bytes=rollout.num_engines * part.num_bytes) for part in parts]
