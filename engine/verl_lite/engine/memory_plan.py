"""Memory and time per GPU, or of a machine without one, before anything loads; what cannot fit is refused.

    learner GPU   weights, gradients, moments, reference, critic, activations of one micro-batch
    engine GPU    vLLM's share: weights, working memory, the KV cache of the sequences in flight
    machine       both at once, in the largest of three phases: sampling, an update, writing a checkpoint

Throughput is an upper bound from the GPU's data sheet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.memory_parts import (
    BYTES,
    CPU_PROCESS_BYTES,
    ENGINE_WORK_BYTES,
    GIB,
    PROCESS_BYTES,
    Part,
    cpu_sampler_parts,
    engine_dtype,
    learner_parts,
    sequence_bytes,
    transformers_parts,
)
from verl_lite.engine.model.machine import Ram
from verl_lite.engine.model.shape import ModelShape
from verl_lite.errors import ConfigError

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

    def note_on_free(self, ram: Ram | None) -> list[str]:
        """One line where less of the machine's memory is free than is planned."""
        needed = self.devices[0].total_bytes
        is_elsewhere = self.devices[0].limit_bytes is None  # a cluster's nodes
        if ram is None or is_elsewhere or needed <= ram.free_bytes:
            return []
        return [
            f"the run needs {needed / GIB:.1f} GiB at its largest, and {ram.free_bytes / GIB:.1f} of this "
            "machine's memory are free: close other programs, or it may be killed"
        ]

    def compare_learner(self, used_bytes: int) -> str:
        """The plan of the learner beside the most that its tensors took; "" where nothing was measured."""
        if not used_bytes:
            return ""
        planned = sum(part.num_bytes for part in self.devices[0].parts if part.name != "process")
        return (
            f"memory: the tensors of this process took at most {used_bytes / GIB:.1f} GiB of the GPU; "
            f"planned for the learner were {planned / GIB:.1f}"
        )


def plan_memory(
    config: TrainConfig, shape: ModelShape, gpu: Gpu | None, *, ram: Ram | None = None
) -> MemoryPlan:
    """Plan the memory per kind of GPU, or of this machine if `gpu` is None.

    Raises ConfigError, with advice, if `gpu` is too small, or the machine's `ram`.
    """
    throughput = _throughput(config, shape, gpu)
    if gpu is None:
        machine = _machine(config, shape, ram)
        _check_machine(config, machine)
        return MemoryPlan(devices=(machine,), throughput=throughput)
    learner = _learner(config, shape, gpu)
    _check_learner(config, learner)
    if config.rollout.sampler == "vllm-server":  # it runs elsewhere
        return MemoryPlan(devices=(learner,), throughput=throughput)
    if config.rollout.sampler == "transformers":
        engine = DevicePlan(
            title="sampler (transformers)",
            parts=transformers_parts(config, shape, dtype="bfloat16"),  # its weights never leave the GPU
            limit_bytes=float(gpu.memory_bytes),
        )
        _check_beside_transformers(config, learner, engine, gpu)
    else:
        engine = _engine(config, shape, gpu)
        _check_engine(config, shape, engine)
        if config.rollout.shares_gpus:
            _check_shared(config, learner, gpu)
    return MemoryPlan(devices=(learner, engine), throughput=throughput)


def _learner(config: TrainConfig, shape: ModelShape, gpu: Gpu) -> DevicePlan:
    learner = config.learner
    kind = learner.parallel if learner.num_ranks > 1 else "one process"
    return DevicePlan(
        title=f"learner, {learner.num_ranks} x ({kind})",
        parts=[*learner_parts(config, shape, on_gpu=True), Part("process", PROCESS_BYTES, rests=True)],
        limit_bytes=float(gpu.memory_bytes),
    )


def _machine(config: TrainConfig, shape: ModelShape, ram: Ram | None) -> DevicePlan:
    """Everything on the CPU of one machine, in its largest phase. Machines of a cluster are not known."""
    ranks = config.learner.num_ranks
    one = [*learner_parts(config, shape, on_gpu=False), Part("process", CPU_PROCESS_BYTES, rests=True)]
    parts = [replace(part, num_bytes=ranks * part.num_bytes) for part in one]
    sampler = cpu_sampler_parts(config, shape)
    state = sum(part.num_bytes for part in parts if part.name in ("weights", "optimiser"))
    gradients = [part for part in parts if part.name == "gradients"]  # freed, but malloc keeps their memory
    phases = {
        "sampling": [part for part in sampler if not part.rests],
        "an update": [part for part in parts if not part.rests],
        "a checkpoint": [Part("copy of weights and optimiser", state), *gradients],
    }
    if config.asynchrony.mode != "sync":
        phases["an update"] += phases["sampling"]
    during, largest = max(phases.items(), key=lambda phase: sum(part.num_bytes for part in phase[1]))
    return DevicePlan(
        title=f"this machine, during {during}",
        parts=[part for part in [*parts, *sampler] if part.rests] + largest,
        limit_bytes=None if ram is None or config.cluster.address is not None else float(ram.total_bytes),
    )


def _check_machine(config: TrainConfig, machine: DevicePlan) -> None:
    if machine.limit_bytes is None or machine.total_bytes <= machine.limit_bytes:
        return
    ways = ", ".join([*_ways_to_shrink(config), "a smaller rollout.vllm.kv_cache_gib"])
    raise ConfigError(
        f"the memory of this machine does not hold the run. {machine}. To make it smaller: {ways} "
        "(config check --gpu-gib plans GPUs instead)"
    )


def _engine(config: TrainConfig, shape: ModelShape, gpu: Gpu) -> DevicePlan:
    rollout = config.rollout
    cuts = rollout.vllm.tensor_parallel_size
    weights = BYTES[engine_dtype(config)] * shape.num_parameters / cuts
    wanted = -(-rollout.num_prompts * rollout.num_samples // rollout.num_engines)
    one = sequence_bytes(config, shape)
    share = rollout.vllm.gpu_memory_utilization * gpu.memory_bytes
    held = min(wanted, int(max(0.0, share - weights - ENGINE_WORK_BYTES) // one))
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


def _check_learner(config: TrainConfig, device: DevicePlan) -> None:
    assert device.limit_bytes is not None
    if device.total_bytes <= device.limit_bytes:
        return
    learner, ways = config.learner, _ways_to_shrink(config)
    if learner.gradient_checkpointing and not learner.offload_activations:
        ways.insert(0, "learner.offload_activations: true")
    ways.append(f"more learner.num_ranks than {learner.num_ranks} with parallel: fsdp")
    if learner.num_ranks == 1 or learner.parallel == "replicated":
        ways.append("learner.optimizer.offload: true")
    raise ConfigError(f"the learner does not fit on its GPU. {device}. To make it smaller: {', '.join(ways)}")


def _ways_to_shrink(config: TrainConfig) -> list[str]:
    """Settings that make a learner smaller, on any device."""
    learner = config.learner
    shards = learner.num_ranks > 1 and learner.parallel == "fsdp"
    ways = {
        "learner.gradient_checkpointing: true": not learner.gradient_checkpointing,
        f"learner.max_tokens_per_micro_batch: {config.rollout.context_tokens}": (
            learner.max_tokens_per_micro_batch > config.rollout.context_tokens
        ),
        "learner.optimizer.bits: 8": learner.optimizer.bits != 8 and not shards,
        "learner.lora": learner.lora is None,
    }
    return [way for way, is_open in ways.items() if is_open]


def _check_engine(config: TrainConfig, shape: ModelShape, device: DevicePlan) -> None:
    assert device.limit_bytes is not None
    if device.total_bytes <= device.limit_bytes:
        return
    vllm = config.rollout.vllm
    raise ConfigError(
        f"an engine does not fit on its GPU: weights and the KV cache of one sequence of "
        f"{config.rollout.context_tokens} tokens ({sequence_bytes(config, shape) / GIB:.2f} GiB). {device}. "
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
