"""A learner step with the group's prompt computed once, against the same step without sharing.

CPU time of the process, which other programs on the machine do not change.

python benchmarks/shared_prompts.py [--dtype bfloat16]
"""

import argparse
import copy
import statistics
import time

import torch
from learner_sides import make_batch, make_model, our_gradients, our_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = make_model(vocab_size=8_000, hidden_size=512, num_layers=args.layers)
    samples = make_batch(
        num_prompts=1, group_size=8, vocab_size=8_000, prompt=(1024, 1024), total=(1152, 1152)
    )
    kinds = ("never", "always")
    steps = {
        kind: our_step(copy.deepcopy(model), samples, dtype=args.dtype, share_prompts=kind) for kind in kinds
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for repeat in range(args.repeats + 1):  # alternating, so that a busy machine slows both
        for kind in kinds:
            started = time.process_time()
            steps[kind]()
            if repeat:
                times[kind].append(time.process_time() - started)
    apart, shared = (statistics.median(times[kind]) for kind in kinds)
    left, right = (our_gradients(copy.deepcopy(model), samples, share_prompts=kind) for kind in kinds)
    worst = max(float((left[n] - right[n]).norm() / left[n].norm()) for n in left)
    print(f"prompt 1024, 8 samples of 128, {args.dtype}: unshared {apart:.2f} s, shared {shared:.2f} s, "
          f"{apart / shared:.2f}x")  # fmt: skip
    print(f"largest relative difference of a parameter's gradient (float32): {worst:.1e}")


if __name__ == "__main__":
    main()
