"""Memory and time per GPU, computed before anything loads; runs that cannot fit are refused.

    learner GPU   weights, gradients, moments, reference, critic, activations of one micro-batch
    engine GPU    vLLM's share: weights, working memory, the KV cache of the sequences in flight

Weights, moments and KV cache are exact. Activations are what autograd keeps for a decoder layer of the
Llama and Qwen families: KEPT bytes per token, counted with saved-tensor hooks on our policy (and checked by
the tests of the memory plan). Throughput is an upper bound from the GPU's data sheet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.model.shape import ModelShape
from verl_lite.engine.rollout.transformers_sampler import BATCH_ROWS
from verl_lite.errors import ConfigError

GIB = 2**30
PROCESS_BYTES = GIB  # CUDA context, kernels, fragmentation
ENGINE_WORK_BYTES = 2 * GIB  # vLLM's activations of a full batch of prefill tokens, CUDA graphs, logits
# bytes that autograd keeps per token and layer, for each hidden, query, key and MLP unit
KEPT = {"float32": (24, 22, 24, 16), "bfloat16": (26, 13, 12, 8)}
KEPT_AT_ENDS = 16  # bytes per token and hidden unit: embedding, last norm, input of the head
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
DENSE_BF16_TFLOPS = {  # NVIDIA's data sheets, without sparsity
    "H200": 989, "H100": 989, "B200": 2250, "A100": 312, "L40S": 362, "L4": 121, "A10": 125, "4090": 165,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    name: str
    memory_bytes: int

    @property
    def peak_flops(self) -> float | None:
        """Dense bfloat16 operations per second; None for a GPU without a known data sheet."""
        found = [tflops for key, tflops in DENSE_BF16_TFLOPS.items() if key in self.name]
        return max(found) * 1e12 if found else None


def local_gpu() -> Gpu | None:
    """This machine's GPU with the least memory; None without a GPU."""
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    gpus = [Gpu(name=found.name, memory_bytes=found.total_memory) for found in properties]
    return min(gpus, key=lambda gpu: gpu.memory_bytes, default=None)


def peak_tensor_bytes() -> int:
    """The most that torch's tensors of this process took of its GPU; 0 without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


@dataclass(frozen=True, slots=True)
class Part:
    """One use of memory; `rests`: it stays on the GPU while the engine generates."""

    name: str
    num_bytes: float
    rests: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """The peak memory of one kind of GPU, and its limit (None: no GPU is known)."""

    title: str
    parts: Sequence[Part]
    limit_bytes: float | None
    note: str = ""

    @property
    def total_bytes(self) -> float:
        return sum(part.num_bytes for part in self.parts)

    def __str__(self) -> str:
        parts = ", ".join(f"{part.name} {part.num_bytes / GIB:.2f}" for part in self.parts)
        of = "" if self.limit_bytes is None else f" of {self.limit_bytes / GIB:.1f}"
        note = f"; {self.note}" if self.note else ""
        return f"{self.title}: {self.total_bytes / GIB:.1f}{of} GiB ({parts}){note}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    devices: Sequence[DevicePlan]
    throughput: str

    def lines(self) -> list[str]:
        return [*map(str, self.devices), self.throughput]

    def compare_learner(self, used_bytes: int) -> str:
        """The plan of the learner beside the most that its tensors took; "" where nothing was measured."""
        if not used_bytes:
            return ""
        planned = sum(part.num_bytes for part in self.devices[0].parts if part.name != "process")
        return (
            f"memory: the tensors of this process took at most {used_bytes / GIB:.1f} GiB of the GPU; "
            f"planned for the learner were {planned / GIB:.1f}"
        )


def plan_memory(config: TrainConfig, shape: ModelShape, gpu: Gpu | None) -> MemoryPlan:
    """Plan the memory per kind of GPU. Raises ConfigError, with advice, if `gpu` is too small."""
    learner, throughput = _learner(config, shape, gpu), _throughput(config, shape, gpu)
    if gpu is not None:
        _check_learner(config, learner)
    if config.rollout.sampler == "vllm-server":  # it runs elsewhere
        return MemoryPlan(devices=(learner,), throughput=throughput)
    engine = _engine(config, shape, gpu)
    if gpu is not None and config.rollout.sampler == "transformers":
        _check_beside_transformers(config, learner, engine, gpu)
    elif gpu is not None:
        _check_engine(config, shape, engine)
        if config.rollout.shares_gpus:
            _check_shared(config, learner, gpu)
    return MemoryPlan(devices=(learner, engine), throughput=throughput)


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


def _learner(config: TrainConfig, shape: ModelShape, gpu: Gpu | None) -> DevicePlan:
    learner, optimizer = config.learner, config.learner.optimizer
    shards = learner.num_ranks if learner.parallel == "fsdp" else 1
    lora, total = learner.lora, shape.num_parameters
    trained = total if lora is None else shape.num_lora_parameters(lora.rank)
    base_bytes = 4.0 if lora is None else 0.5 if lora.quantize else float(BYTES[config.model.dtype])
    weights = base_bytes * total + (4.0 * trained if lora is not None else 0.0)
    moments = 0.0 if optimizer.offload else (2.0 if optimizer.bits == 8 else 8.0) * trained
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
        offload=learner.offload_activations,
    )
    parts += [
        Part(f"activations of {tokens} tokens", kept),
        Part("logits", 3.0 * learner.logits_tile(on_gpu=True) * 2**20),
        Part("process", PROCESS_BYTES, rests=True),
    ]
    kind = learner.parallel if learner.num_ranks > 1 else "one process"
    return DevicePlan(
        title=f"learner, {learner.num_ranks} x ({kind})",
        parts=parts,
        limit_bytes=None if gpu is None else float(gpu.memory_bytes),
    )


def _cast_of_base(config: TrainConfig, shape: ModelShape) -> int:
    """Number of LoRA base weights cast for computing: none if they are bfloat16 already."""
    if config.learner.is_quantized:
        return shape.layer_parameters  # an upper bound: one matrix at a time
    return 0 if config.model.dtype == "bfloat16" else shape.num_parameters


def _engine(config: TrainConfig, shape: ModelShape, gpu: Gpu | None) -> DevicePlan:
    rollout = config.rollout
    if rollout.sampler == "transformers":
        return _transformers(config, shape, gpu)
    cuts = rollout.vllm.tensor_parallel_size
    weights = BYTES[_engine_dtype(config)] * shape.num_parameters / cuts
    wanted = -(-rollout.num_prompts * rollout.num_samples // rollout.num_engines)
    one = _sequence_bytes(config, shape)
    share = None if gpu is None else rollout.vllm.gpu_memory_utilization * gpu.memory_bytes
    fits = wanted if share is None else int(max(0.0, share - weights - ENGINE_WORK_BYTES) // one)
    held = min(wanted, fits)
    note = f"its KV cache holds {held} of {wanted} sequences of {rollout.context_tokens} tokens at once"
    return DevicePlan(
        title=f"engine, {rollout.num_engines} x (tensor parallel {cuts})",
        parts=[
            Part("weights", weights),
            Part("KV cache", one * max(held, 1)),
            Part("working memory", ENGINE_WORK_BYTES),
        ],
        limit_bytes=share,
        note=note,
    )


def _transformers(config: TrainConfig, shape: ModelShape, gpu: Gpu | None) -> DevicePlan:
    """The transformers sampler in the trainer's process; its weights never leave the GPU."""
    rows = min(config.rollout.num_prompts * config.rollout.num_samples, BATCH_ROWS)
    return DevicePlan(
        title="sampler (transformers)",
        parts=[
            Part("weights", BYTES["bfloat16"] * shape.num_parameters, rests=True),
            Part(f"KV cache of {rows} sequences", _sequence_bytes(config, shape) * rows),
        ],
        limit_bytes=None if gpu is None else float(gpu.memory_bytes),
    )


def _sequence_bytes(config: TrainConfig, shape: ModelShape) -> float:
    """KV cache bytes of one full-length sequence per GPU, which has at least one key head."""
    heads = -(-shape.num_kv_heads // config.rollout.vllm.tensor_parallel_size)
    bytes_per_token = 2 * shape.num_layers * heads * shape.head_dim * BYTES[_engine_dtype(config)]
    return float(bytes_per_token * config.rollout.context_tokens)


def _engine_dtype(config: TrainConfig) -> str:
    dtype = config.rollout.vllm.dtype
    return "bfloat16" if dtype == "auto" else dtype  # "auto" reads float32 weights as half precision


def _check_learner(config: TrainConfig, device: DevicePlan) -> None:
    assert device.limit_bytes is not None
    if device.total_bytes <= device.limit_bytes:
        return
    learner, ways = config.learner, []
    if not learner.gradient_checkpointing:
        ways.append("learner.gradient_checkpointing: true")
    elif not learner.offload_activations:
        ways.append("learner.offload_activations: true")
    if learner.max_tokens_per_micro_batch > config.rollout.context_tokens:
        ways.append(f"learner.max_tokens_per_micro_batch: {config.rollout.context_tokens}")
    ways.append(f"more learner.num_ranks than {learner.num_ranks} with parallel: fsdp")
    if learner.num_ranks == 1 or learner.parallel == "replicated":
        ways += ["learner.optimizer.bits: 8", "learner.optimizer.offload: true"]
    if learner.lora is None:
        ways.append("learner.lora")
    raise ConfigError(f"the learner does not fit on its GPU. {device}. To make it smaller: {', '.join(ways)}")


def _check_engine(config: TrainConfig, shape: ModelShape, device: DevicePlan) -> None:
    assert device.limit_bytes is not None
    if device.total_bytes <= device.limit_bytes:
        return
    vllm = config.rollout.vllm
    raise ConfigError(
        f"an engine does not fit on its GPU: weights and the KV cache of one sequence of "
        f"{config.rollout.context_tokens} tokens ({_sequence_bytes(config, shape) / GIB:.2f} GiB). {device}. "
        f"What helps: rollout.vllm.tensor_parallel_size above {vllm.tensor_parallel_size}, "
        f"rollout.vllm.gpu_memory_utilization above {vllm.gpu_memory_utilization:g}, a shorter "
        "rollout.max_new_tokens"
    )


def _check_shared(config: TrainConfig, learner: DevicePlan, gpu: Gpu) -> None:
    """Check one GPU for both: vLLM's share plus the learner at rest, or at its peak if both work at once."""
    vllm, mode = config.rollout.vllm, config.asynchrony.mode
    share = vllm.gpu_memory_utilization * gpu.memory_bytes
    takes_turns = vllm.sleep and mode == "sync"
    beside = sum(part.num_bytes for part in learner.parts if part.rests or not takes_turns)
    if share + beside <= gpu.memory_bytes:
        return
    when = "at rest"
    if mode != "sync":
        when = f"during an update (asynchrony.mode={mode} samples meanwhile)"
    elif not vllm.sleep:
        when = "during an update (rollout.vllm.sleep is false)"
    sleep = "set rollout.vllm.sleep: true, " if mode == "sync" and not vllm.sleep else ""
    fits = (gpu.memory_bytes - beside) / gpu.memory_bytes
    lower = f"lower rollout.vllm.gpu_memory_utilization to {int(fits * 100) / 100:.2f}, " if fits > 0 else ""
    raise ConfigError(
        f"learner and engine share a GPU of {gpu.memory_bytes / GIB:.1f} GiB, but vLLM's share "
        f"(gpu_memory_utilization {vllm.gpu_memory_utilization:g}) is {share / GIB:.1f} and the learner "
        f"{when} holds {beside / GIB:.1f} beside it: {lower}"
        f"{sleep}or give the engines separate GPUs"
    )


def _check_beside_transformers(
    config: TrainConfig, learner: DevicePlan, sampler: DevicePlan, gpu: Gpu
) -> None:
    """The sampler's weights stay on the GPU; in sync mode its cache and the learner's peak do not overlap."""
    in_turns = config.asynchrony.mode == "sync"
    sampling = sampler.total_bytes + sum(p.num_bytes for p in learner.parts if p.rests or not in_turns)
    updating = learner.total_bytes + sum(p.num_bytes for p in sampler.parts if p.rests or not in_turns)
    needed = max(sampling, updating)
    if needed > gpu.memory_bytes:
        raise ConfigError(
            f"learner and rollout.sampler: transformers share a GPU of {gpu.memory_bytes / GIB:.1f} GiB, but "
            f"need {needed / GIB:.1f} together. {learner}. {sampler}. What helps: a smaller learner, or "
            "rollout.sampler: vllm with rollout.placement: disaggregated"
        )


def _throughput(config: TrainConfig, shape: ModelShape, gpu: Gpu | None) -> str:
    rollout, learner = config.rollout, config.learner
    sequences = rollout.num_prompts * rollout.num_samples
    trained = sequences * rollout.context_tokens * config.algorithm.epochs
    passes = 8 if learner.gradient_checkpointing is True else 6  # forward 2, backward 4, forward again 2
    update = passes * shape.num_parameters * trained / learner.num_ranks
    engines = rollout.num_engines * rollout.vllm.tensor_parallel_size
    sampled = 2 * shape.num_parameters * sequences * rollout.context_tokens / engines
    text = (
        f"a step: {sequences} sequences of at most {rollout.context_tokens} tokens; at most "
        f"{update / 1e15:.3g} PFLOP per learner rank, {sampled / 1e15:.3g} per GPU of the engines"
    )
    if gpu is None or gpu.peak_flops is None:
        return text
    seconds = f"{update / gpu.peak_flops:.1f} s and {sampled / gpu.peak_flops:.1f} s"
    return f"{text}; at the peak of the {gpu.name}'s data sheet {seconds}"
