"""Kill a rollout engine at a random moment, again and again: does every run of sequences come back whole?

    python benchmarks/kill_engines.py [--kills 20] [--engines 2]

Engines are vLLM processes that Ray places. In each round a batch is sampled and one engine, chosen
at random, gets SIGKILL at a random moment of the batch, or while new weights load. Recovered means:
every sequence arrived, with the tokens of an undisturbed run, and afterwards all engines, the
replacement among them, pass the canary. Exit code 1 unless all recover.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from verl_lite.engine.algorithm_config import AlgorithmConfig, LearnerConfig
from verl_lite.engine.cluster.ray_sampler import RaySampler
from verl_lite.engine.cluster_config import ClusterConfig
from verl_lite.engine.config import DatasetConfig, RolloutConfig, TinyModelConfig, VllmConfig
from verl_lite.engine.data import read_prompts
from verl_lite.engine.learner import Learner
from verl_lite.engine.model_folder import load_policy
from verl_lite.engine.stages import PromptRow
from verl_lite.engine.tiny_model import build_tiny_model, build_tiny_tokenizer
from verl_lite.plugins import Rollout, SamplerSettings

NUM_PROMPTS, NUM_SAMPLES, NEW_TOKENS = 16, 8, 96
SETTINGS = SamplerSettings(max_new_tokens=NEW_TOKENS, seed=1)


def tokens(groups: Iterator[list[Rollout]]) -> dict[str, list[int]]:
    return {rollout.id: list(rollout.completion_ids) for group in groups for rollout in group}


def sample(sampler: RaySampler, prompts: list[PromptRow]) -> dict[str, list[int]]:
    return tokens(sampler.generate(prompts, num_samples=NUM_SAMPLES, settings=SETTINGS))


def one_kill(
    sampler: RaySampler,
    learner: Learner,
    prompts: list[PromptRow],
    *,
    batch_s: float,
    random_source: random.Random,
    version: int,
) -> tuple[str, dict[str, list[int]], float]:
    """Kill during a batch or a load; returns (when, the batch, the canary's largest difference after)."""
    victim = random_source.choice(sorted(answer["pid"] for answer in sampler.pool.each("describe")))
    during_load = random_source.random() < 0.2
    delay_s = random_source.uniform(0, 0.02 if during_load else batch_s)
    timer = threading.Timer(delay_s, os.kill, (victim, signal.SIGKILL))
    timer.start()
    if during_load:
        sampler.load_weights(learner, version=version)
    batch = sample(sampler, prompts)
    timer.join()
    difference = sampler.load_weights(learner, version=version)  # waits for the replacement
    return f"{'load' if during_load else 'batch'}, {delay_s:.2f} s in", batch, difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engines", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build_tiny_model(Path(folder), TinyModelConfig(), seed=0)
        tokenizer = build_tiny_tokenizer()
        rows = DatasetConfig(task="arithmetic", num_rows=NUM_PROMPTS)
        prompts = read_prompts(rows, tokenizer, max_prompt_tokens=32, seed=0)
        config = RolloutConfig(
            num_engines=options.engines,
            max_prompt_tokens=32,
            max_new_tokens=NEW_TOKENS,
            vllm=VllmConfig(kv_cache_gib=0.1),
        )
        cluster = ClusterConfig(max_restarts=options.kills, start_timeout_s=900)
        model = load_policy(folder, dtype="float32", device=torch.device("cpu"))
        learner = Learner(model, LearnerConfig(), AlgorithmConfig(), pad_token_id=0, total_steps=1)
        sampler = RaySampler(folder, tokenizer, config, cluster, canary_ids=prompts[0].prompt_ids, seed=0)
        sampler.load_weights(learner, version=0)
        sample(sampler, prompts)  # warm-up
        started = time.perf_counter()
        undisturbed = sample(sampler, prompts)
        batch_s = time.perf_counter() - started
        print(f"{len(undisturbed)} sequences, {batch_s:.1f} s undisturbed, {options.engines} engines")
        print("| kill | when | sampled again | canary | until whole (s) | recovered |")
        print("|---|---|---|---|---|---|")
        recovered, random_source = 0, random.Random(0)
        for kill in range(1, options.kills + 1):
            again = sampler.pool.num_sequences_again
            started = time.perf_counter()
            when, batch, difference = one_kill(
                sampler, learner, prompts, batch_s=batch_s, random_source=random_source, version=kill
            )
            seconds = time.perf_counter() - started
            whole = batch == undisturbed and sampler.pool.num_restarts == kill
            recovered += whole
            again = sampler.pool.num_sequences_again - again
            verdict = "yes" if whole else "NO"
            print(f"| {kill} | {when} | {again} | {difference:.1e} | {seconds:.1f} | {verdict} |", flush=True)
        sampler.close()
    print(f"recovered: {recovered} of {options.kills}")
    sys.exit(int(recovered < options.kills))


if __name__ == "__main__":
    main()
