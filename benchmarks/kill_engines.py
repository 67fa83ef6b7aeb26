"""Kill a rollout engine at a random moment, again and again: does every run of sequences come back complete?

    python benchmarks/kill_engines.py [--kills 20] [--engines 2] [--at-once 1] [--record KILLS.jsonl]

Engines are vLLM processes that Ray places. In each round a batch is sampled and `--at-once` engines, chosen
at random, get SIGKILL at random moments of the batch, or while new weights load. Recovered means:
every sequence arrived, with the tokens of an undisturbed run, and afterwards all engines, the
replacement among them, pass the canary. Exit code 1 unless all recover. With `--record` each kill is kept
as a line, and the next call continues after the last; `--seconds` ends a call early.
"""

import argparse
import json
import math
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from verl_lite.engine import PromptRow
from verl_lite.engine.cluster import RaySampler
from verl_lite.engine.config import (
    AlgorithmConfig,
    ClusterConfig,
    DatasetConfig,
    LearnerConfig,
    RolloutConfig,
    TinyModelConfig,
    VllmConfig,
)
from verl_lite.engine.data import read_prompts
from verl_lite.engine.learner import Learner
from verl_lite.engine.model import ChatTemplate, build_tiny_model, build_tiny_tokenizer, load_policy
from verl_lite.plugins import Rollout, SamplerSettings

NUM_PROMPTS, NUM_SAMPLES, NEW_TOKENS = 16, 8, 96
SETTINGS = SamplerSettings(max_new_tokens=NEW_TOKENS, seed=1)


def tokens(groups: Iterator[list[Rollout]]) -> dict[str, list[int]]:
    return {rollout.id: list(rollout.completion_ids) for group in groups for rollout in group}


def sample(sampler: RaySampler, prompts: list[PromptRow]) -> dict[str, list[int]]:
    return tokens(sampler.generate(prompts, num_samples=NUM_SAMPLES, settings=SETTINGS))


def one_round(
    sampler: RaySampler,
    learner: Learner,
    prompts: list[PromptRow],
    *,
    batch_s: float,
    at_once: int,
    random_source: random.Random,
    version: int,
) -> tuple[list[str], dict[str, list[int]], float]:
    """Kill during a batch or a load; returns (when, the batch, the canary's largest difference after)."""
    pids = sorted(answer["pid"] for answer in sampler.pool.broadcast("describe"))
    during_load = random_source.random() < 0.2
    when = []
    timers = []
    for victim in random_source.sample(pids, at_once):
        delay_s = random_source.uniform(0, 0.02 if during_load else batch_s)
        timers.append(threading.Timer(delay_s, os.kill, (victim, signal.SIGKILL)))
        when.append(f"{'load' if during_load else 'batch'}, {delay_s:.2f} s in")
    for timer in timers:
        timer.start()
    if during_load:
        sampler.load_weights(learner, version=version)
    batch = sample(sampler, prompts)
    for timer in timers:
        timer.join()
    difference = sampler.load_weights(learner, version=version)  # waits for the replacements
    return when, batch, difference


def shown(row: dict[str, Any]) -> str:
    verdict = "yes" if row["recovered"] else "NO"
    again, difference, seconds = row["again"], row["canary"], row["seconds"]
    return f"| {row['kill']} | {row['when']} | {again} | {difference:.1e} | {seconds:.1f} | {verdict} |"


@contextmanager
def engines(count: int, prompts: list[PromptRow], *, kills: int) -> Iterator[tuple[RaySampler, Learner]]:
    """A sampler on `count` engines, and the learner whose weights they have."""
    with tempfile.TemporaryDirectory() as folder:
        build_tiny_model(Path(folder), TinyModelConfig(), seed=0)
        tokenizer = build_tiny_tokenizer()
        config = RolloutConfig(
            num_engines=count,
            max_prompt_tokens=32,
            max_new_tokens=NEW_TOKENS,
            vllm=VllmConfig(kv_cache_gib=0.1),
        )
        cluster = ClusterConfig(max_restarts=kills, start_timeout_s=900)
        model = load_policy(folder, dtype="float32", device=torch.device("cpu"))
        learner = Learner(model, LearnerConfig(), AlgorithmConfig(), pad_token_id=0, total_steps=1)
        sampler = RaySampler(folder, tokenizer, config, cluster, canary_ids=prompts[0].prompt_ids, seed=0)
        try:
            sampler.load_weights(learner, version=0)
            yield sampler, learner
        finally:
            sampler.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=1, help="engines killed in a round")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--seconds", type=float, default=math.inf, help="no kill begins later in this call")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if options.record is not None and options.record.is_file():
        rows = [json.loads(line) for line in options.record.read_text().splitlines()]
    task = DatasetConfig(task="arithmetic", num_rows=NUM_PROMPTS)
    prompts = read_prompts(task, ChatTemplate(build_tiny_tokenizer()), max_prompt_tokens=32, seed=0)
    with engines(options.engines, prompts, kills=options.kills) as (sampler, learner):
        sample(sampler, prompts)  # warm-up
        started = time.perf_counter()
        undisturbed = sample(sampler, prompts)
        batch_s = time.perf_counter() - started
        print(
            f"{len(undisturbed)} sequences, {batch_s:.1f} s undisturbed, {options.engines} engines; "
            f"load {os.getloadavg()[0]:.1f}"
        )
        print("| kill | when | sampled again | canary | until whole (s) | recovered |")
        print("|---|---|---|---|---|---|")
        for row in rows:
            print(shown(row))
        began = time.monotonic()
        while len(rows) < options.kills and time.monotonic() - began < options.seconds:
            restarts, again = sampler.pool.num_restarts, sampler.pool.num_requeued
            at_once, number = min(options.at_once, options.kills - len(rows)), len(rows) + 1
            started = time.perf_counter()
            when, batch, difference = one_round(
                sampler,
                learner,
                prompts,
                batch_s=batch_s,
                at_once=at_once,
                random_source=random.Random(number),
                version=number,
            )
            row = {
                "again": sampler.pool.num_requeued - again,
                "canary": difference,
                "seconds": time.perf_counter() - started,
                "recovered": batch == undisturbed and sampler.pool.num_restarts == restarts + at_once,
            }
            for at, moment in enumerate(when):
                rows.append({"kill": number + at, "when": moment, **row})
                print(shown(rows[-1]), flush=True)
                if options.record is not None:
                    with options.record.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    recovered = sum(row["recovered"] for row in rows)
    print(f"recovered: {recovered} of {len(rows)}")
    sys.exit(int(recovered < len(rows)))


if __name__ == "__main__":
    main()
