"""Long-tail lengths on two engines: hand-out by sequence against an equal split of the batch.

    python benchmarks/long_tail.py [--sequences 512] [--places 32] [--repeats 3]

10% of the sequences are ten times as long; lengths are set (the end token is ignored), so both sides
sample the same tokens on the same engines. Equal split gives each engine its half of the batch, in
order, at once. Three orders of the batch: the long ones scattered; all samples of some prompts long;
all of them at the end, as in a data set sorted by difficulty. The time is the slower engine's: its
CPU time, which other load does not change (one thread each), and the wall time.

`--places` is what an engine works on at a time, on both sides: on a GPU the KV cache sets it. What it was
handed out beyond that waits in the engine, so that a free place is taken at the next step. With places for
the whole batch (`--places 256`) every sequence begins at once on either side, the longest one decides,
and there is little to share out.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from verl_lite.engine.cluster import (
    EngineActor,
    EnginePool,
    PoolLimits,
    RayEngine,
    RayRuntime,
    engine_resources,
)
from verl_lite.engine.config import ClusterConfig, RolloutConfig, TinyModelConfig, VllmConfig
from verl_lite.engine.model import build_tiny_model
from verl_lite.engine.rollout import SequenceRequest
from verl_lite.plugins import SamplerSettings

SHORT, LONG, GROUP = 24, 240, 8
ENGINES = 2
TIMEOUT_S = 600
ORDERS = ("scattered", "by prompt", "together")


def lengths_of(order: str, num_sequences: int, source: random.Random) -> list[int]:
    """A tenth of them long, rounded to whole prompts where prompts are long or short."""
    num_long = num_sequences // 10
    if order == "together":
        return [SHORT] * (num_sequences - num_long) + [LONG] * num_long
    if order == "scattered":
        lengths = [SHORT] * (num_sequences - num_long) + [LONG] * num_long
        source.shuffle(lengths)
        return lengths
    prompts = [SHORT] * (num_sequences // GROUP)
    for index in source.sample(range(len(prompts)), round(num_long / GROUP)):
        prompts[index] = LONG
    return [length for length in prompts for _ in range(GROUP)]


def requests(lengths: Sequence[int], name: str) -> list[SequenceRequest]:
    return [
        SequenceRequest(
            id=f"{name}/{index}",
            prompt_ids=tuple(range(10, 30)),
            settings=SamplerSettings(max_new_tokens=length, seed=index),
            ignore_end=True,
        )
        for index, length in enumerate(lengths)
    ]


def by_sequence(engines: Sequence[RayEngine], pool: EnginePool, work: Sequence[SequenceRequest]) -> int:
    return sum(len(finished.token_ids) for finished in pool.run(work))


def equal_split(engines: Sequence[RayEngine], pool: EnginePool, work: Sequence[SequenceRequest]) -> int:
    half = len(work) // len(engines)
    calls = {
        index: (engine, engine.call("advance", work[index * half : (index + 1) * half], []))
        for index, engine in enumerate(engines)
    }
    open_, num_tokens = [half] * len(engines), 0
    while calls:
        for index, (engine, call) in list(calls.items()):
            finished = engine.answer(call, timeout_s=TIMEOUT_S)
            num_tokens += sum(len(one.token_ids) for one in finished)
            open_[index] -= len(finished)
            if open_[index]:
                calls[index] = engine, engine.call("advance", [], [])
            else:
                del calls[index]
    return num_tokens


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def measured(
    side: Callable[[Sequence[RayEngine], EnginePool, Sequence[SequenceRequest]], int],
    engines: Sequence[RayEngine],
    pool: EnginePool,
    pids: Sequence[int],
    work: Sequence[SequenceRequest],
) -> tuple[float, float]:
    """(CPU seconds of the busier engine, wall seconds)."""
    before, started = [cpu_s(pid) for pid in pids], time.perf_counter()
    num_tokens = side(engines, pool, work)
    wall = time.perf_counter() - started
    assert num_tokens == sum(request.settings.max_new_tokens for request in work)
    return max(cpu_s(pid) - earlier for pid, earlier in zip(pids, before, strict=True)), wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=512)
    parser.add_argument("--places", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--orders", nargs="+", default=ORDERS, choices=ORDERS)
    options = parser.parse_args()
    config = RolloutConfig(
        num_engines=ENGINES, max_prompt_tokens=32, max_new_tokens=256, vllm=VllmConfig(kv_cache_gib=0.5)
    )
    limits = PoolLimits(start_timeout_s=TIMEOUT_S, call_timeout_s=TIMEOUT_S, max_restarts=0)
    source = random.Random(0)
    with tempfile.TemporaryDirectory() as folder, RayRuntime(ClusterConfig(), cpus=ENGINES):
        build_tiny_model(Path(folder), TinyModelConfig(), seed=0)
        engines = [
            RayEngine(
                EngineActor,
                engine_resources(config, index, on_gpu=False),
                model_path=folder,
                config=config,
                seed=0,
                options={"max_num_seqs": options.places + 1},  # one is the canary's
            )
            for index in range(ENGINES)
        ]
        pool = EnginePool(engines.__getitem__, num_engines=ENGINES, limits=limits)
        pool.broadcast("describe")
        pids = [engine.answer(engine.call("describe"), timeout_s=TIMEOUT_S)["pid"] for engine in engines]
        by_sequence(engines, pool, requests([SHORT] * options.sequences, "warm-up"))
        load = os.getloadavg()[0]
        print(f"{options.sequences} sequences, {options.places} places an engine; load {load:.1f}\n")
        print("| order | by sequence (CPU s) | equal split (CPU s) | ratio, CPU | ratio, wall |")
        print("|---|---|---|---|---|")
        best = 0.0
        for order in options.orders:
            pairs = []
            for repeat in range(options.repeats):
                work = requests(lengths_of(order, options.sequences, source), f"{order} {repeat}")
                sides = (by_sequence, equal_split) if repeat % 2 else (equal_split, by_sequence)
                pairs.append({side: measured(side, engines, pool, pids, work) for side in sides})
            ours = statistics.median(pair[by_sequence][0] for pair in pairs)
            theirs = statistics.median(pair[equal_split][0] for pair in pairs)
            cpu = statistics.median(pair[equal_split][0] / pair[by_sequence][0] for pair in pairs)
            wall = statistics.median(pair[equal_split][1] / pair[by_sequence][1] for pair in pairs)
            best = max(best, cpu)
            print(f"| {order} | {ours:.2f} | {theirs:.2f} | {cpu:.2f} | {wall:.2f} |", flush=True)
        pool.close()
    print(f"largest ratio: {best:.2f} (at least 1.4 wanted)")
    sys.exit(int(best < 1.4))


if __name__ == "__main__":
    main()
