"""What a vLLM engine on a GPU is told, by a stand-in for vLLM; what it does then needs a GPU."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from verl_lite.engine.config import RolloutConfig, TrainConfig
from verl_lite.engine.rollout.vllm_engine import VllmEngine, _start
from verl_lite.errors import ConfigError
from verl_lite.plugins import validate


class FakeLLM:
    def __init__(self, log: list[Any]) -> None:
        self._log = log
        cache = SimpleNamespace(enable_prefix_caching=True)
        self.llm_engine = SimpleNamespace(vllm_config=SimpleNamespace(cache_config=cache))

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self._log.append((name, *arguments, options)) or True


def engine_of(log: list[Any], *, adapters: Any = None) -> VllmEngine:
    engine = VllmEngine.__new__(VllmEngine)
    engine.llm = FakeLLM(log)
    engine._loads_midway, engine._on_gpu, engine._sleeps = False, True, True
    engine._adapters, engine._running, engine._asleep = adapters, {}, set()
    engine.version = 0
    return engine


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: found.append("torch gives back its reserve"))
    return found


def test_full_weights_need_no_copy_of_the_old_ones(log: list[Any]) -> None:
    """The KV cache takes its memory after the weights have arrived, and forgets what it held."""
    engine = engine_of(log)
    engine.wake()
    assert log == []  # it is awake
    engine.sleep()
    engine.wake()
    engine.load([("w", torch.ones(1))], version=3)
    names = [entry if isinstance(entry, str) else (entry[0], entry[-1]) for entry in log]
    assert names == [
        ("sleep", {"level": 2}),
        "torch gives back its reserve",
        ("wake_up", {"tags": ["weights"]}),
        ("collective_rpc", {"kwargs": {"weights_iterator": [("w", torch.ones(1))]}}),
        ("wake_up", {"tags": ["kv_cache"]}),
        ("reset_prefix_cache", {"reset_running_requests": False}),
    ]
    assert engine.version == 3
    engine.weights_arrived(version=4)
    assert len([entry for entry in log if entry[0] == "wake_up"]) == 2


def test_adapters_need_the_base_weights_again(log: list[Any]) -> None:
    adapters = SimpleNamespace(load=lambda llm, named: log.append(("adapters", list(named))))
    engine = engine_of(log, adapters=adapters)
    engine.sleep()
    engine.wake()
    engine.load([("a", torch.ones(1))], version=1)
    kinds = [entry if isinstance(entry, str) else entry[:1] + entry[-1:] for entry in log]
    assert kinds[0] == ("sleep", {"level": 1})
    assert kinds[2:5] == [
        ("wake_up", {"tags": ["weights"]}),
        ("adapters", ["a"]),
        ("wake_up", {"tags": ["kv_cache"]}),
    ]


def test_eight_bits_need_a_gpu_and_a_correction() -> None:
    fp8 = RolloutConfig.model_validate({"vllm": {"quantization": "fp8"}})
    with pytest.raises(
        ConfigError, match="quantization=fp8 needs a GPU, and there is none here: leave it out"
    ):
        _start("folder", fp8, on_gpu=False, seed=0, options={})
    tree = {
        "steps": 1, "model": {"tiny": {"max_context_tokens": 2048}},
        "data": {"train": {"task": "arithmetic", "num_rows": 8}},
        "rewards": {"format": {"use": "format"}},
        "rollout": {"vllm": {"quantization": "fp8"}, "num_prompts": 4},
    }  # fmt: skip
    for mode in ("truncate", "mask"):
        validate(TrainConfig, tree | {"algorithm": {"importance": {"mode": mode}}}, source="test")
    with pytest.raises(ConfigError, match="samples from a coarser policy than the learner's"):
        validate(TrainConfig, tree | {"algorithm": {"importance": {"mode": "off"}}}, source="test")


def test_an_engine_in_eight_bits_says_so_to_the_canary(log: list[Any]) -> None:
    engine = engine_of(log)
    engine._is_eight_bit = True
    assert engine.dtype == "float8_e4m3fn"
    assert torch.finfo(getattr(torch, engine.dtype)).eps == 0.125
