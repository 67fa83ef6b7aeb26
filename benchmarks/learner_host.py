"""CPU seconds between a batch's samples and the model: packing, and the columns that the loss reads.

lists     token lists joined in Python, then made tensors, as it was until 2026-11
now       each sample's lists become arrays once, and they are joined; the learner's own are arrays already
arrays    the same with samples that hold arrays already, as if the sampler gave them

python benchmarks/learner_host.py [--samples 512] [--tokens 2048]
"""

import argparse
import random
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from verl_lite.engine import TrainingSample
from verl_lite.engine.config import LearnerConfig
from verl_lite.engine.learner.packing import token_column
from verl_lite.engine.learner.policy import micro_batches

VOCAB, PROMPT = 150_000, 256
COLUMNS = ("advantages_T", "loss_mask_T", "sampler_logprobs_T", "old_logprobs_T")


def make_samples(count: int, tokens: int) -> list[TrainingSample]:
    rng = random.Random(0)
    prompts = [[rng.randrange(VOCAB) for _ in range(PROMPT)] for _ in range(count // 8)]
    return [
        TrainingSample(
            prompt_ids=prompts[at // 8],
            completion_ids=[rng.randrange(VOCAB) for _ in range(tokens)],
            sampler_logprobs_T=[-rng.random() for _ in range(tokens)],
            old_logprobs_T=array("d", (-rng.random() for _ in range(tokens))),
            advantages_T=[rng.uniform(-1, 1)] * tokens,
            loss_mask_T=[1] * tokens,
            group=str(at // 8),
        )
        for at in range(count)
    ]


def by_lists(samples: Sequence[TrainingSample]) -> list[torch.Tensor]:
    """One row of all samples from joined lists, and its columns."""
    ids: list[int] = []
    positions: list[int] = []
    predict_from: list[int] = []
    for sample in samples:
        new = [*sample.prompt_ids, *sample.completion_ids[:-1]]
        predict_from += range(len(ids) + len(sample.prompt_ids) - 1, len(ids) + len(new))
        ids += new
        positions += range(len(new))
    targets = [token for sample in samples for token in sample.completion_ids]
    columns = [[value for sample in samples for value in getattr(sample, name)] for name in COLUMNS]
    return [torch.tensor(one) for one in (ids, positions, predict_from, targets, *columns)]


def by_the_learner(samples: Sequence[TrainingSample]) -> list[Any]:
    config = LearnerConfig(max_tokens_per_micro_batch=16_384, share_prompts="never")
    packed: list[Any] = list(micro_batches(samples, config, packed=True, pad_token_id=0))
    like = torch.zeros(0)
    return packed + [token_column((getattr(one, name) for one in samples), like) for name in COLUMNS]


def as_arrays(sample: TrainingSample) -> TrainingSample:
    values = {name: np.asarray(getattr(sample, name), dtype=np.float64) for name in COLUMNS}
    ids = {name: np.asarray(getattr(sample, name)) for name in ("prompt_ids", "completion_ids")}
    return replace(sample, **ids, **values)


def cpu_seconds(call: Callable[[], object], *, repeats: int = 3) -> float:
    """The least of several runs: what else the machine does only adds."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=2048)
    args = parser.parse_args()
    torch.set_num_threads(1)
    samples = make_samples(args.samples, args.tokens)
    arrays = [as_arrays(sample) for sample in samples]
    lists = cpu_seconds(lambda: by_lists(samples))
    print(f"{args.samples} samples of {args.tokens} tokens behind prompts of {PROMPT}")
    print("| samples as | CPU seconds | ratio |\n|---|---|---|")
    for name, seconds in (
        ("lists, joined in Python", lists),
        ("lists, arrays from packing on (now)", cpu_seconds(lambda: by_the_learner(samples))),
        ("arrays from the sampler on", cpu_seconds(lambda: by_the_learner(arrays))),
    ):
        print(f"| {name} | {seconds:.3f} | {lists / seconds:.1f}x |")


if __name__ == "__main__":
    main()
