"""vLLM on a GPU: parity with the learner in bfloat16, sleep and wake, adapters, prefix cache, FP8.

`benchmarks/gpu/run_all.sh --rehearse` runs the same lines on the CPU, where nothing sleeps and 8 bits are
refused.
"""

import os
from typing import Any

import pytest
import torch

from verl_lite.engine.config import AlgorithmConfig, LearnerConfig, LoraConfig, RolloutConfig
from verl_lite.engine.learner import Learner
from verl_lite.engine.model import load_policy
from verl_lite.engine.types import PromptRow
from verl_lite.plugins import SamplerSettings

ON_GPU = torch.cuda.is_available()
IS_REHEARSAL = os.environ.get("VERL_LITE_REHEARSE_GPU") == "1"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not (ON_GPU or IS_REHEARSAL), reason="needs a GPU")]


def learner_of(folder: Any, *, lora: LoraConfig | None = None) -> Learner:
    model = load_policy(str(folder), dtype="bfloat16", device=torch.device("cuda" if ON_GPU else "cpu"))
    config = LearnerConfig(dtype="bfloat16", lora=lora, compile=False)
    return Learner(model, config, AlgorithmConfig(), pad_token_id=0, total_steps=4)


def moved(learner: Learner) -> None:
    with torch.no_grad():
        for parameter in learner.policy.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)


@pytest.mark.parametrize(
    ("lora", "quantization"),
    [
        pytest.param(None, None, id="full"),
        pytest.param(LoraConfig(rank=8), None, id="LoRA"),
        pytest.param(None, "fp8", id="FP8"),
    ],
)
def test_new_weights_reach_a_sleeping_engine(
    small_model: Any, tokenizer: Any, lora: LoraConfig | None, quantization: str | None
) -> None:
    """The canary passes in the engine's dtype after every sync; samples report what the learner computes."""
    from verl_lite.engine.rollout import VllmSampler

    if quantization and not ON_GPU:
        pytest.skip("8-bit products need a GPU")
    vllm = {"gpu_memory_utilization": 0.2, "dtype": "bfloat16", "quantization": quantization}
    vllm |= {"kv_cache_gib": 0.1, "enforce_eager": lora is not None}  # graphs are captured in the others
    config = RolloutConfig.model_validate({"max_prompt_tokens": 32, "max_new_tokens": 32, "vllm": vllm})
    ids = tokenizer("12 + 34 = 46, so 46 is right")["input_ids"]
    sampler = VllmSampler(str(small_model), tokenizer, config, canary_ids=ids, seed=0, lora=lora)
    try:
        learner = learner_of(small_model, lora=lora)
        prompt = PromptRow(id="a", messages=[{"role": "user", "content": "1 + 1"}], prompt_ids=ids[:8])
        settings = SamplerSettings(temperature=1.0, max_new_tokens=16, seed=3)
        for version in (1, 2):
            moved(learner)
            sampler.load_weights(learner, version=version)
            free_before = torch.cuda.mem_get_info()[0] if ON_GPU else 0
            (group,) = sampler.generate([prompt], num_samples=4, settings=settings)
            for rollout in group:
                whole = [*rollout.prompt_ids, *rollout.completion_ids]
                own = learner.token_logprobs(whole)[-len(rollout.completion_ids) :]
                pairs = zip(own, rollout.logprobs, strict=True)
                gaps = [abs(left - right) for left, right in pairs]
                assert sum(gaps) / len(gaps) < (0.5 if quantization else 0.1)
            sampler.sleep()
            assert not ON_GPU or torch.cuda.mem_get_info()[0] > free_before, "sleeping freed nothing"
            sampler.wake()
    finally:
        sampler.close()
