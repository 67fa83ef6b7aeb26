"""Our generation loop against raw vLLM on the same prompts, and what a weight sync costs.

    python benchmarks/generation.py [--repeats 5]

Both sides use the one engine, the same requests (one seed each, the sampled token's log-probability)
and the same weights; raw vLLM is `LLM.generate`, which hands back nothing until all is done. Ours
yields groups as they finish, decodes them and builds the rollouts that rewards read.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from verl_lite.engine import PromptRow
from verl_lite.engine.config import (
    AlgorithmConfig,
    DatasetConfig,
    LearnerConfig,
    RolloutConfig,
    TinyModelConfig,
)
from verl_lite.engine.data import read_prompts
from verl_lite.engine.learner import Learner
from verl_lite.engine.model import ChatTemplate, build_tiny_model, build_tiny_tokenizer, load_policy
from verl_lite.engine.rollout import VllmSampler
from verl_lite.engine.rundir import derive_seed
from verl_lite.plugins import SamplerSettings

NUM_PROMPTS, NUM_SAMPLES, NEW_TOKENS = 32, 8, 64


def ours(sampler: VllmSampler, prompts: list[PromptRow], seed: int) -> float:
    """Tokens per second of Sampler.generate."""
    settings = SamplerSettings(max_new_tokens=NEW_TOKENS, seed=seed)
    started = time.perf_counter()
    groups = list(sampler.generate(prompts, num_samples=NUM_SAMPLES, settings=settings))
    seconds = time.perf_counter() - started
    return sum(len(rollout.completion_ids) for group in groups for rollout in group) / seconds


def raw(llm: Any, prompts: list[PromptRow], seed: int) -> float:
    """Tokens per second of LLM.generate on the same requests."""
    from vllm import SamplingParams

    requests = [
        ({"prompt_token_ids": list(prompt.prompt_ids)}, derive_seed(seed, prompt.id, index))
        for prompt in prompts
        for index in range(NUM_SAMPLES)
    ]
    parameters = [
        SamplingParams(max_tokens=NEW_TOKENS, seed=request_seed, logprobs=0, detokenize=False)
        for _, request_seed in requests
    ]
    started = time.perf_counter()
    outputs = llm.generate([prompt for prompt, _ in requests], parameters, use_tqdm=False)
    seconds = time.perf_counter() - started
    return sum(len(output.outputs[0].token_ids) for output in outputs) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        build_tiny_model(Path(folder), TinyModelConfig(), seed=0)
        tokenizer = build_tiny_tokenizer()
        rows = DatasetConfig(task="arithmetic", num_rows=NUM_PROMPTS)
        prompts = read_prompts(rows, ChatTemplate(tokenizer), max_prompt_tokens=32, seed=0)
        config = RolloutConfig(max_prompt_tokens=32, max_new_tokens=NEW_TOKENS)
        sampler = VllmSampler(folder, tokenizer, config, canary_ids=prompts[0].prompt_ids, seed=0)
        model = load_policy(folder, dtype="float32", device=torch.device("cpu"))
        learner = Learner(model, LearnerConfig(), AlgorithmConfig(), pad_token_id=0, total_steps=1)
        syncs, pairs = [], []
        for repeat in range(repeats + 1):
            started = time.perf_counter()
            sampler.load_weights(learner, version=repeat)
            syncs.append(time.perf_counter() - started)
            # alternating which goes first, so that neither profits from a warm cache
            order = (raw, ours) if repeat % 2 else (ours, raw)
            speed = {
                side: side(sampler if side is ours else sampler.engine.llm, prompts, repeat)  # type: ignore[operator]
                for side in order
            }
            pairs.append((speed[ours], speed[raw]))
        sampler.close()
    pairs, syncs = pairs[1:], syncs[1:]  # the first is warm-up
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    print(f"ours     {statistics.median(mine for mine, _ in pairs):8,.0f} tokens/s (median of {repeats})")
    print(f"raw vLLM {statistics.median(theirs for _, theirs in pairs):8,.0f} tokens/s")
    print(f"ratio    {ratio:8.1%} (median of the pairs; at least 90% wanted)")
    print(f"weight sync, canary included: {1000 * statistics.median(syncs):.0f} ms")
    sys.exit(int(ratio < 0.9))


if __name__ == "__main__":
    main()
