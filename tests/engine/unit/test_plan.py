"""The plan's numbers against hand-computed ones of known models and against what autograd really keeps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine import TrainingSample
from verl_lite.engine.config import LearnerConfig, ModelConfig, TinyModelConfig, TrainConfig
from verl_lite.engine.learner import Policy
from verl_lite.engine.memory_parts import GIB, activation_bytes
from verl_lite.engine.memory_plan import Gpu, plan_memory
from verl_lite.engine.model import ModelShape, load_policy, shape_of, shape_of_config, tiny
from verl_lite.engine.model.machine import Ram, local_ram
from verl_lite.errors import ConfigError
from verl_lite.plugins import load_config

EXAMPLES = Path(__file__).parents[3] / "examples"
H100 = Gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=80 * GIB)
QWEN3_8B = ModelShape(
    num_parameters=8_190_735_360,
    vocab_size=151_936,
    num_layers=36,
    hidden_size=4096,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=12288,
)


def qwen3(**sizes: Any) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(vocab_size=151_936, head_dim=128, num_key_value_heads=8, **sizes)


def config(**sections: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "steps": 1,
            "model": {"path": "any", "dtype": "bfloat16"},
            "data": {"train": {"path": "rows.jsonl"}},
            "rewards": {"math": {"use": "math"}},
            **sections,
        }
    )


def gib(plan: Any, device: int) -> dict[str, float]:
    return {part.name: round(part.num_bytes / GIB, 2) for part in plan.devices[device].parts}


def test_parameters_of_known_models() -> None:
    """Qwen3-0.6B: 596,049,920 = 151,936 x 1,024 + 28 x 15,730,944 + 1,024; 8B as its model card has it."""
    small = shape_of_config(
        qwen3(
            hidden_size=1024,
            num_hidden_layers=28,
            num_attention_heads=16,
            intermediate_size=3072,
            tie_word_embeddings=True,
        )
    )
    assert small.num_parameters == 151_936 * 1024 + 28 * 15_730_944 + 1024 == 596_049_920
    large = shape_of_config(
        qwen3(
            hidden_size=4096,
            num_hidden_layers=36,
            num_attention_heads=32,
            intermediate_size=12288,
            tie_word_embeddings=False,
        )
    )
    assert large == QWEN3_8B
    # of 192,946,432 in a layer all but the norms: 2 x 4,096 and 2 x 128
    assert large.layer_parameters == 192_946_432 - 2 * 4096 - 2 * 128


def test_an_8b_model_on_eight_ranks_by_hand() -> None:
    """8.19e9 parameters of 4 bytes over 8 ranks are 3.81 GiB; a token's keys and values 144 KiB."""
    plan = plan_memory(
        config(
            learner={
                "num_ranks": 8, "dtype": "bfloat16", "gradient_checkpointing": True,
                "max_tokens_per_micro_batch": 8192,
            },
            rollout={
                "num_engines": 8, "num_prompts": 64, "num_samples": 8, "max_prompt_tokens": 1024,
                "max_new_tokens": 7168, "vllm": {"gpu_memory_utilization": 0.9},
            },
        ),
        QWEN3_8B,
        H100,
    )  # fmt: skip
    learner = gib(plan, 0)
    assert (learner["weights"], learner["gradients"], learner["optimiser"]) == (3.81, 3.81, 7.63)
    assert learner["weights to compute with"] == round(2 * 2 * 192_937_984 / GIB, 2) == 0.72
    layer = 26 * 4096 + 13 * 4096 + 12 * 1024 + 8 * 12288
    kept = 8192 * (4 * 4096 * 36 + layer + 16 * 4096)
    assert learner["activations of 8192 tokens"] == round(kept / GIB, 2)
    engine = gib(plan, 1)
    assert engine["weights"] == round(2 * 8_190_735_360 / GIB, 2) == 15.26
    one = 2 * 36 * 8 * 128 * 2 * 8192  # 1.125 GiB
    assert one / GIB == 1.125
    held = int((0.9 * 80 - 8_190_735_360 * 2 / GIB - 2) // 1.125)  # 48 of the 64 of each engine
    assert held == 48
    assert engine["KV cache"] == 48 * 1.125
    assert plan.devices[1].note == "its KV cache holds 48 of 64 sequences of 8192 tokens at once"
    # 512 sequences x 8,192 tokens x 8 FLOP x parameters / 8 ranks, at 989 TFLOP/s
    flops = 8 * 8_190_735_360 * 512 * 8192 / 8
    assert f"{flops / 1e15:.3g} PFLOP per learner rank" in plan.throughput
    assert f"{flops / 989e12:.1f} s and " in plan.throughput


def test_lora_and_small_moments_by_hand() -> None:
    """Rank 16 on every linear map of 8B is 43.6 million parameters, as PEFT counts them."""
    assert QWEN3_8B.num_lora_parameters(16) == 43_646_976
    large = Gpu(name="large", memory_bytes=500 * GIB)
    lora = gib(plan_memory(config(learner={"lora": {"rank": 16}}), QWEN3_8B, large), 0)
    assert lora["weights"] == round((2 * 8_190_735_360 + 4 * 43_646_976) / GIB, 2)
    assert lora["gradients"] == round(4 * 43_646_976 / GIB, 2)
    # a bfloat16 base is computed with as it is: only the adapters are cast
    mixed = gib(plan_memory(config(learner={"lora": {"rank": 16}, "dtype": "bfloat16"}), QWEN3_8B, large), 0)
    assert mixed["weights to compute with"] == round(2 * 43_646_976 / GIB, 2)
    eight = gib(plan_memory(config(learner={"optimizer": {"bits": 8}}), QWEN3_8B, large), 0)
    assert eight["optimiser"] == round(2 * 8_190_735_360 / GIB, 2)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, r"the learner does not fit on its GPU.*of 80.0 GiB.*learner.num_ranks"),
        (
            {"learner": {"num_ranks": 64, "max_tokens_per_micro_batch": 1024},
             "rollout": {"vllm": {"gpu_memory_utilization": 0.2}}},
            r"an engine does not fit on its GPU.*tensor_parallel_size above 1",
        ),
        (
            {"learner": {"lora": {}, "max_tokens_per_micro_batch": 1024, "dtype": "bfloat16"},
             "rollout": {"vllm": {"gpu_memory_utilization": 0.8}}},
            r"share a GPU of 80.0 GiB.*lower rollout.vllm.gpu_memory_utilization to 0\.79",
        ),
    ],
)  # fmt: skip
def test_what_cannot_fit_is_refused_with_what_to_change(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_memory(config(**sections), QWEN3_8B, H100)


LORA = {"lora": {}, "max_tokens_per_micro_batch": 1024, "dtype": "bfloat16"}


def test_engine_and_learner_on_one_gpu_at_a_time_or_together() -> None:
    """At rest the LoRA learner leaves 0.79 of an H100 free; where both work at once it does not."""
    in_turns = config(learner=LORA, rollout={"vllm": {"gpu_memory_utilization": 0.75}})
    plan_memory(in_turns, QWEN3_8B, H100)
    ahead = config(
        learner=LORA,
        rollout={"vllm": {"gpu_memory_utilization": 0.75}},
        asynchrony={"mode": "one_ahead"},
        algorithm={"importance": {"mode": "truncate"}},
    )
    with pytest.raises(
        ConfigError, match=r"during an update \(asynchrony.mode=one_ahead samples meanwhile\)"
    ):
        plan_memory(ahead, QWEN3_8B, H100)


def test_an_engine_in_the_trainer_s_process_shares_with_one_of_many_ranks() -> None:
    ranks = {"num_ranks": 8, "dtype": "bfloat16", "max_tokens_per_micro_batch": 1024}
    plan_memory(config(learner=ranks, rollout={"vllm": {"gpu_memory_utilization": 0.8}}), QWEN3_8B, H100)
    with pytest.raises(ConfigError, match=r"share a GPU of 80.0 GiB"):
        plan_memory(config(learner=ranks, rollout={"vllm": {"gpu_memory_utilization": 0.9}}), QWEN3_8B, H100)


def test_a_server_s_gpu_is_its_own_and_transformers_stays_beside_the_learner() -> None:
    server = {"sampler": "vllm-server", "server": {"url": "http://localhost:8000"}}
    plan = plan_memory(config(learner=LORA, rollout=server), QWEN3_8B, H100)
    assert [device.title for device in plan.devices] == ["learner, 1 x (one process)"]
    transformers = {"sampler": "transformers", "num_prompts": 4}
    plan = plan_memory(config(learner=LORA, rollout=transformers), QWEN3_8B, H100)
    # 32 sequences of 1,024 tokens; 2 x 36 layers x 8 heads x 128 x 2 bytes a token: 144 KiB
    assert gib(plan, 1) == {"sampler's weights": 15.26, "KV cache of 32 sequences": 4.5}
    with pytest.raises(ConfigError, match=r"rollout.sampler: transformers share a GPU of 30.0 GiB, but need"):
        plan_memory(
            config(learner=LORA, rollout=transformers), QWEN3_8B, Gpu(name="30", memory_bytes=30 * GIB)
        )


SMOLLM2 = ModelShape(
    num_parameters=134_515_008,
    vocab_size=49_152,
    num_layers=30,
    hidden_size=576,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
)


def test_a_machine_without_a_gpu_by_hand() -> None:
    """SmolLM2-135M in float32 on a CPU; benchmarks/results/cpu.md has what such runs really took."""
    one_row = {"learner": {"max_tokens_per_micro_batch": 1024}, "model": {"path": "any"}}
    plan = plan_memory(config(**one_row), SMOLLM2, None)
    assert plan.devices[0].title == "this machine, during an update"
    parts = gib(plan, 0)
    assert (parts["weights"], parts["gradients"], parts["optimiser"]) == (0.5, 0.5, 1.0)
    # vLLM packs the output head, which is the embedding too, into a copy
    assert parts["vLLM's weights"] == round(4 * (134_515_008 + 49_152 * 576) / GIB, 2) == 0.61
    kept = 1024 * (30 * (24 * 576 + 22 * 576 + 24 * 192 + 16 * 1536) + 16 * 576)
    assert parts["activations of 1024 tokens"] == round(kept / GIB, 2) == 1.6
    assert parts["KV cache when full"] == 1.0
    # checkpointing leaves the copy of weights and both moments, 12 bytes a parameter, as the largest phase
    small = {**one_row, "learner": {"max_tokens_per_micro_batch": 1024, "gradient_checkpointing": True}}
    plan = plan_memory(config(**small), SMOLLM2, None)
    assert plan.devices[0].title == "this machine, during a checkpoint"
    assert gib(plan, 0)["copy of weights and optimiser"] == round(12 * 134_515_008 / GIB, 2) == 1.5
    assert gib(plan, 0)["gradients"] == 0.5  # malloc keeps their memory


def test_samplers_and_ranks_of_a_machine_add_up() -> None:
    def parts(**sections: Any) -> dict[str, float]:
        return gib(plan_memory(config(**sections), SMOLLM2, None), 0)

    one = parts()
    server = {"sampler": "vllm-server", "server": {"url": "http://localhost:8000"}}
    assert not {"vLLM", "KV cache when full"} & set(parts(rollout=server))
    assert parts(rollout={"sampler": "transformers"})["sampler's weights"] == 0.5  # float32 on a CPU
    many = parts(rollout={"num_engines": 3}, learner={"num_ranks": 2, "parallel": "replicated"})
    assert many["KV cache when full"] == 3 * one["KV cache when full"]
    assert many["weights"] == pytest.approx(2 * one["weights"], abs=0.02)
    assert many["vLLM"] == pytest.approx(3 * (0.7 + 0.6), abs=0.01)  # processes of their own


def test_a_machine_that_cannot_hold_the_run_is_refused_and_a_full_one_noted() -> None:
    small, full = Ram(16 * GIB, 16 * GIB), Ram(999 * GIB, 10 * GIB)
    with pytest.raises(
        ConfigError,
        match=r"of this machine does not hold the run.* of 16\.0 GiB.*gradient_checkpointing: true, "
        r"learner\.max_tokens_per_micro_batch: 1024, .*lora, a smaller rollout\.vllm\.kv_cache_gib",
    ):
        plan_memory(config(), QWEN3_8B, None, ram=small)
    plan = plan_memory(config(), QWEN3_8B, None, ram=full)
    (note,) = plan.note_on_free(full)
    assert "and 10.0 of this machine's memory are free" in note
    assert plan.note_on_free(Ram(999 * GIB, 900 * GIB)) == plan.note_on_free(None) == []
    on_a_cluster = replace(plan, devices=(replace(plan.devices[0], limit_bytes=None),))
    assert on_a_cluster.note_on_free(full) == []  # its memory is not this machine's
    joined = {"cluster": {"address": "ray://head:10001"}, "rollout": {"num_engines": 2}}
    plan_memory(config(**joined), QWEN3_8B, None, ram=small)  # its machines are not this one
    lines = plan_memory(config(), QWEN3_8B, None).lines()
    assert len(lines) == 2
    assert " of " not in lines[0].partition(" GiB")[0]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Ram(2000 * 1024, 1500 * 1024)),
        ({"memory.max": "max"}, Ram(2000 * 1024, 1500 * 1024)),
        (
            {
                "memory.max": "1000000",
                "memory.current": "700000",
                "memory.stat": "a 9\ninactive_file 300000",
            },
            Ram(1_000_000, 600_000),
        ),
        (
            {
                "memory/memory.limit_in_bytes": "1000000",
                "memory/memory.usage_in_bytes": "10000",
                "memory/memory.stat": "inactive_file 0",
            },
            Ram(1_000_000, 990_000),
        ),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, Ram(2000 * 1024, 1500 * 1024)),
    ],
    ids=["none", "no limit", "v2", "v1", "v1 without a limit"],
)
def test_a_container_s_limit_counts(tmp_path: Path, files: dict[str, str], expected: Ram) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:    2000 kB\nMemAvailable:    1500 kB\nHugePages_Total:   0\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert local_ram(meminfo=meminfo, cgroup=tmp_path) == expected
    assert local_ram(meminfo=tmp_path / "none") is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_autograd_keeps(tmp_path: Path, dtype: str, checkpointing: bool) -> None:
    """A shape that the numbers in plan.py were not taken from; weights' bfloat16 copies are counted apart."""
    sizes = TinyModelConfig(
        hidden_size=96,
        num_layers=3,
        num_heads=6,
        num_kv_heads=2,
        intermediate_size=320,
        max_context_tokens=512,
    )
    tiny.build_tiny_model(tmp_path, sizes, seed=0)
    model = load_policy(str(tmp_path), dtype="float32", device=torch.device("cpu")).train()
    learner = LearnerConfig.model_validate({"dtype": dtype, "gradient_checkpointing": checkpointing})
    policy = Policy(model, learner, pad_token_id=0)
    samples = [
        TrainingSample(
            prompt_ids=[i + 2] * 4,
            completion_ids=[7] * 252,
            sampler_logprobs_T=[0.0] * 252,
            advantages_T=[1.0] * 252,
            loss_mask_T=[1] * 252,
            group=str(i),
        )
        for i in range(4)
    ]
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    [batch] = list(policy.micro_batches(samples))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.logprobs(batch)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    shape = shape_of(ModelConfig(tiny=sizes))
    assert shape.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    if dtype == "bfloat16" and not checkpointing:
        measured -= 2 * shape.layer_parameters * shape.num_layers
    num_tokens = batch.input_ids_RL.numel()
    planned = activation_bytes(shape, num_tokens, dtype=dtype, gradient_checkpointing=checkpointing)
    if checkpointing:  # the one layer that is computed again comes in the backward pass
        one = activation_bytes(shape, num_tokens, dtype=dtype, gradient_checkpointing=False) / 3
        planned -= one
    assert planned == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("name", ["cluster_one_node_8gpu.yaml", "cluster_2_plus_2_nodes.yaml"])
def test_the_example_fits_gpus_of_80_gib_and_no_smaller_ones(name: str) -> None:
    config = load_config(TrainConfig, EXAMPLES / name)
    plan = plan_memory(config, QWEN3_8B, H100)
    assert all(device.total_bytes < 80 * GIB for device in plan.devices)
    with pytest.raises(ConfigError, match="GiB"):
        plan_memory(config, QWEN3_8B, Gpu(name="small", memory_bytes=12 * GIB))
