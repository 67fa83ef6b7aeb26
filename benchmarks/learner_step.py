"""One learner step (log-probs, loss, backward, clip, AdamW): verl-lite against TRL, identical ragged batches.

Needs an environment with both: `pip install trl` beside verl-lite's train extra.

    python benchmarks/learner_step.py [--repeats 3]
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import trl
from learner_sides import make_batch, make_model, num_tokens, our_step, trl_step


@dataclass(frozen=True)
class Timing:
    """Medians of one side's steps; `cpu_s` is what the process really computed, busy machine or not."""

    wall_s: float
    cpu_s: float


def timing(step: Callable[[], object], *, warmup: int, repeats: int) -> Timing:
    walls, cpus = [], []
    for _ in range(warmup + repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Timing(statistics.median(walls[warmup:]), statistics.median(cpus[warmup:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--group-size", type=int, default=4)
    parser.add_argument("--rows", default="float32,bfloat16,best")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vocab_size = 32_000
    model = make_model(vocab_size=vocab_size, hidden_size=768, num_layers=10)
    samples = make_batch(
        num_prompts=args.groups,
        group_size=args.group_size,
        vocab_size=vocab_size,
        prompt=(32, 256),
        total=(64, 1024),
    )
    tokens = num_tokens(samples)
    lengths = sorted(len(s.prompt_ids) + len(s.completion_ids) for s in samples)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{parameters:.0f} M parameters, {len(samples)} samples of {lengths} tokens; TRL {trl.__version__}")
    rows = {
        "float32": ({"dtype": "float32", "share_prompts": "never"}, {"bf16": False}),
        "bfloat16": ({"dtype": "bfloat16", "share_prompts": "never"}, {"bf16": True}),
        "best": ({"dtype": "bfloat16", "share_prompts": "always"}, {"bf16": True}),
    }
    print(
        "| setting | TRL tokens/s | verl-lite tokens/s | ratio | ratio of CPU time |\n|---|---|---|---|---|"
    )
    measured: dict[str, Timing] = {}
    for name in args.rows.split(","):
        ours, theirs = rows[name]
        key = str(theirs)
        if key not in measured:
            step = trl_step(copy.deepcopy(model), samples, gradient_checkpointing=False, **theirs)
            measured[key] = timing(step, warmup=args.warmup, repeats=args.repeats)
            del step
        peer = measured[key]
        mine = timing(
            our_step(copy.deepcopy(model), samples, **ours), warmup=args.warmup, repeats=args.repeats
        )
        wall, cpu = peer.wall_s / mine.wall_s, peer.cpu_s / mine.cpu_s
        cells = (name, f"{tokens / peer.wall_s:.0f}", f"{tokens / mine.wall_s:.0f}", f"{wall:.2f}x")
        print("|", " | ".join(cells), f"| {cpu:.2f}x ({peer.cpu_s:.1f} s / {mine.cpu_s:.1f} s) |", flush=True)


if __name__ == "__main__":
    main()
