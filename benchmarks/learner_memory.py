"""Peak memory of forward and backward at V=151,936: verl-lite against TRL's default path, same gradients.

Each side runs in a process of its own, on the same weights and batch, with its default settings (TRL's:
gradient checkpointing on, its tiled output head). Needs an environment with `trl` beside verl-lite.

    python benchmarks/learner_memory.py
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from learner_sides import (
    make_batch,
    make_model,
    num_tokens,
    our_gradients,
    peak_rss_mb,
    reset_peak_rss,
    trl_step,
)

VOCAB = 151_936


def run_side(side: str, out: Path, threads: int, num_samples: int) -> None:
    """Print the peak RSS and its growth over the loaded model; save the gradients."""
    torch.set_num_threads(threads)
    model = make_model(vocab_size=VOCAB, hidden_size=128, num_layers=2)
    samples = make_batch(
        num_prompts=1, group_size=num_samples, vocab_size=VOCAB, prompt=(32, 64), total=(512, 512)
    )
    if side == "trl":
        run = trl_step(model, samples, bf16=False, gradient_checkpointing=True, step=False)
    reset_peak_rss()
    before = peak_rss_mb()
    if side == "trl":
        gradients = {name: p.grad for name, p in run().named_parameters() if p.grad is not None}
    else:
        gradients = our_gradients(model, samples)
    peak = peak_rss_mb()
    torch.save(gradients, out)
    print(f"{peak:.0f} {peak - before:.0f} {num_tokens(samples)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=["trl", "verl-lite"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4, help="of 512 tokens each")
    args = parser.parse_args()
    if args.side:
        run_side(args.side, args.out, args.threads, args.samples)
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in ("trl", "verl-lite"):
            out = Path(folder, f"{side}.pt")
            command = [
                sys.executable,
                __file__,
                "--side",
                side,
                "--out",
                str(out),
                f"--threads={args.threads}",
                f"--samples={args.samples}",
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results[side] = [float(x) for x in done.stdout.splitlines()[-1].split()]
        theirs, ours = (torch.load(Path(folder, f"{side}.pt")) for side in ("trl", "verl-lite"))
    worst = max(float((ours[n] - theirs[n]).norm() / theirs[n].norm()) for n in theirs)
    print(f"{results['trl'][2]:.0f} tokens, V={VOCAB}")
    print("| | TRL | verl-lite | ratio |\n|---|---|---|---|")
    for at, what in enumerate(("peak RSS, MiB", "growth over the loaded model, MiB")):
        left, right = results["trl"][at], results["verl-lite"][at]
        print(f"| {what} | {left:.0f} | {right:.0f} | 1/{left / right:.1f} |")
    print(f"largest relative difference of a parameter's gradient: {worst:.1e}")


if __name__ == "__main__":
    main()
