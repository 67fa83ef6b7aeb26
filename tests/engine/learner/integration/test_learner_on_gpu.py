"""The learner on a GPU against the CPU and the dense definition.

`benchmarks/gpu/run_all.sh --rehearse` runs the same lines on the CPU, without what only a GPU has.
"""

import copy
import os
from dataclasses import replace
from typing import Any

import pytest
import torch

from verl_lite.engine import TrainingSample
from verl_lite.engine.config import AlgorithmConfig, LearnerConfig, LoraConfig
from verl_lite.engine.learner import (
    AttentionMetadata,
    LayerRule,
    Learner,
    LogitRule,
    Policy,
    Segment,
    attention_kernels,
    logprobs as logprobs_module,
    packed_attention,
    token_logprobs_and_entropy,
)
from verl_lite.engine.learner.attention_kernels import Problem
from verl_lite.engine.testing import family_model

pytestmark = pytest.mark.gpu
# the main families people train, packed unless their classes do not allow it
MAIN = (
    *("llama", "qwen2", "qwen3", "qwen3-moe", "mistral-window", "gemma2", "gemma3", "phi3", "olmo2"),
    *("granite", "smollm3", "gpt-oss"),
)


@pytest.fixture
def device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("VERL_LITE_REHEARSE_GPU") == "1":
        return torch.device("cpu")
    pytest.skip("needs a GPU")


def samples(vocab: int, *, count: int = 8, seed: int = 0) -> list[TrainingSample]:
    generator = torch.Generator().manual_seed(seed)

    def tokens(size: int) -> list[int]:
        return torch.randint(2, vocab, (size,), generator=generator).tolist()

    prompts = [tokens(13), tokens(30)]
    found = []
    for at in range(count):
        completion = tokens(5 + 7 * at)
        found.append(
            TrainingSample(
                prompt_ids=prompts[at % 2],
                completion_ids=completion,
                sampler_logprobs_T=[-4.0] * len(completion),
                advantages_T=[1.0 if at % 3 else -1.0] * len(completion),
                loss_mask_T=[1] * len(completion),
                group=str(at % 2),
            )
        )
    return found


def apart(left: torch.Tensor, right: torch.Tensor) -> float:
    """The length of the difference, relative to `right`."""
    left, right = left.detach().float(), right.detach().float()
    return float((left - right).norm() / right.norm())


ROW = (Segment(0, 200), Segment(200, 263, 0), Segment(263, 300, 0), Segment(300, 700), Segment(700, 729, 3))


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        pytest.param({}, "varlen", id="plain"),
        pytest.param({"window": 64}, "varlen", id="window"),
        pytest.param({"cap": 20.0}, "flex", id="soft cap"),
        pytest.param({"sinks": True, "window": 100}, "flex", id="sinks"),
    ],
)
@pytest.mark.parametrize("head_size", [64, 128])
def test_packed_attention(device: torch.device, rule: dict[str, Any], chosen: str, head_size: int) -> None:
    """Values and gradients in bfloat16, grouped heads, shared prompts, against float32 and one mask."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(heads, 729, head_size, generator=generator).to(device, torch.bfloat16).requires_grad_()
        for heads in (8, 2, 2)
    )
    sinks = torch.linspace(-1, 1, 8, device=device) if rule.get("sinks") else None
    layer = LayerRule(scale=head_size**-0.5, window=rule.get("window"), cap=rule.get("cap"), sinks_H=sinks)
    plan = AttentionMetadata(ROW, device)
    if device.type == "cuda":
        kernel = attention_kernels.choose_kernel(Problem.of(query, key, layer, repeated=plan.num_repeated))
        assert kernel is not None
        assert ("flex" in kernel.name) == (chosen == "flex") or "flash-attn" in kernel.name
    out = packed_attention(query, key, value, plan, layer)
    dense = attention_kernels.dense_row(query.float(), key.float(), value.float(), plan.flex, layer)
    seed = torch.randn(out.shape, generator=generator).to(device)
    theirs = torch.autograd.grad((dense * seed).sum(), (query, key, value), retain_graph=True)
    mine = torch.autograd.grad((out.float() * seed).sum(), (query, key, value))
    for left, right in zip((out, *mine), (dense, *theirs), strict=True):
        assert apart(left, right) < 0.02


@pytest.mark.parametrize("rule", [LogitRule(), LogitRule(scale=0.25, cap=15.0)])
def test_log_probabilities_of_a_large_vocabulary(device: torch.device, rule: LogitRule) -> None:
    """Kernels against torch's tiles on the same device, in bfloat16, without a wait."""
    on_gpu = device.type == "cuda"
    num, vocab = (4096, 151_936) if on_gpu else (64, 2000)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(num, 256, generator=generator).to(device).requires_grad_()
    weight = (torch.randn(vocab, 256, generator=generator) * 0.06).to(device).requires_grad_()
    targets = torch.randint(0, vocab, (num,), generator=generator).to(device)

    def run() -> list[torch.Tensor]:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logp, entropy = token_logprobs_and_entropy(
                hidden, weight, targets, rule=rule, temperature=0.8, tile_mb=512
            )
        return [logp, entropy, *torch.autograd.grad((logp - 0.1 * entropy).sum(), (hidden, weight))]

    if on_gpu:
        assert logprobs_module._tile_math(hidden, torch.float32) is not logprobs_module._TORCH
    mine = run()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(logprobs_module, "_tile_math", lambda hidden, wide: logprobs_module._TORCH)
        theirs = run()
    for left, right in zip(mine, theirs, strict=True):
        assert apart(left, right) < 0.01


OPTIONS: list[dict[str, Any]] = [
    {"compile": False},
    {"compile": True},
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": "selective"},
    {"gradient_checkpointing": True, "offload_activations": True},
    {"optimizer": {"offload": True}},
    {"share_prompts": "never"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_update_is_the_one_of_the_cpu(device: torch.device, options: dict[str, Any]) -> None:
    """The weights after two updates in float32, however layers run and moments are kept."""
    if device.type == "cpu" and options.get("compile"):
        pytest.skip("compiled by inductor on a GPU")
    model = family_model("qwen3")
    vocab = model.get_input_embeddings().weight.shape[0]
    weights = []
    for where, changes in ((torch.device("cpu"), {"compile": False}), (device, options)):
        copied = copy.deepcopy(model).to(where)
        config = LearnerConfig(**{"compile": False} | changes)
        learner = Learner(copied, config, AlgorithmConfig(), pad_token_id=0, total_steps=10)
        for _ in range(2):
            learner.update(samples(vocab))
        weights.append({name: tensor.cpu() for name, tensor in learner.named_weights()})
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("loss", ["ppo_clip", "gspo", "cispo", "policy_gradient"])
def test_losses_on_a_gpu_are_those_of_the_cpu(device: torch.device, loss: str) -> None:
    model = family_model("llama")
    vocab = model.get_input_embeddings().weight.shape[0]
    rows = [replace(row, old_logprobs_T=[-4.1] * len(row.completion_ids)) for row in samples(vocab)]
    found = []
    for where in (torch.device("cpu"), device):
        algorithm = AlgorithmConfig(loss=loss, entropy_bonus=0.01, aggregate="sequence_mean")  # type: ignore[arg-type]
        copied, config = copy.deepcopy(model).to(where), LearnerConfig(compile=False)
        learner = Learner(copied, config, algorithm, pad_token_id=0, total_steps=2)
        found.append(learner.update(rows).metrics)
    for name in ("loss/policy", "policy/entropy", "learner/grad_norm"):
        assert found[1][name] == pytest.approx(found[0][name], rel=2e-3), name


def test_micro_batches_make_nobody_wait(device: torch.device) -> None:
    """From the samples' lists to the gradients: on a GPU an operation that waits for it raises here."""
    model = family_model("qwen3").to(device)
    vocab = model.get_input_embeddings().weight.shape[0]
    policy = Policy(model, LearnerConfig(compile=False, dtype="bfloat16"), pad_token_id=0)
    policy.begin_training()
    try:
        for mode in ("default", "error"):  # the first pass tries kernels and fills caches
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode(mode)
            for batch in policy.micro_batches(samples(vocab)):
                logprobs_N, entropy_N = policy.logprobs_and_entropy(batch)
                (logprobs_N - 0.1 * entropy_N).sum().backward()
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("family", MAIN if torch.cuda.is_available() else MAIN[:2])
def test_a_family_in_bfloat16(device: torch.device, family: str) -> None:
    """Packed in bfloat16 beside its own forward pass in float32: no more apart than rounding explains."""
    model = family_model(family)
    vocab = model.get_input_embeddings().weight.shape[0]
    rows = samples(vocab, count=4)
    exact = Policy(copy.deepcopy(model), LearnerConfig(), pad_token_id=0).completion_logprobs(rows)
    moved = Policy(model.to(device), LearnerConfig(dtype="bfloat16", compile=False), pad_token_id=0)
    for mine, theirs in zip(moved.completion_logprobs(rows), exact, strict=True):
        gaps = [abs(left - right) for left, right in zip(mine, theirs, strict=True)]
        assert sum(gaps) / len(gaps) < 0.05, moved.arrangement


def test_adapters_on_a_base_of_four_bits(device: torch.device, tmp_path: Any) -> None:
    """QLoRA: the update changes the adapters, and only them."""
    pytest.importorskip("bitsandbytes")
    from verl_lite.engine.model import load_policy

    family_model("llama").save_pretrained(tmp_path)
    model = load_policy(str(tmp_path), dtype="bfloat16", device=device, quantize=True)
    config = LearnerConfig(dtype="bfloat16", lora=LoraConfig(rank=4, quantize=True), compile=False)
    learner = Learner(model, config, AlgorithmConfig(), pad_token_id=0, total_steps=4)
    before = {name: tensor.clone() for name, tensor in learner.adapter_weights()}
    metrics = learner.update(samples(64)).metrics
    assert metrics["learner/grad_norm"] > 0
    changed = [not torch.equal(before[name], tensor) for name, tensor in learner.adapter_weights()]
    assert any(changed)
