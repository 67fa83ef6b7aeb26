"""Learner tokens/s, MFU and peak memory on a GPU: Qwen3-0.6B-shaped random weights at 8k to 16k tokens.

Skips without a GPU. MFU counts 6 FLOPs per parameter and token (the output head on completion tokens
only), plus 12 x layers x heads x head_dim x length / 2 per token for causal attention, against the dense
bfloat16 peak given by --peak-tflops (989 for an H100 or H200 SXM).

    python benchmarks/gpu_mfu.py [--length 8192] [--samples 4] [--lora]
"""

import argparse
import random
import statistics
import time

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--peak-tflops", type=float, default=989.0)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_mfu: skipped, no NVIDIA GPU here")
        return
    run(args)


def run(args: argparse.Namespace) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from verl_lite.engine import TrainingSample
    from verl_lite.engine.config import AlgorithmConfig, LearnerConfig, LoraConfig
    from verl_lite.engine.learner import Learner

    shape = Qwen3Config(
        vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, max_position_embeddings=40_960,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(shape).cuda()
    rng = random.Random(0)
    prompt = 512
    samples = [
        TrainingSample(
            prompt_ids=[rng.randrange(151_936) for _ in range(prompt)],
            completion_ids=[rng.randrange(151_936) for _ in range(args.length - prompt)],
            sampler_logprobs_T=(),
            advantages_T=[rng.uniform(-1, 1)] * (args.length - prompt),
            loss_mask_T=[1] * (args.length - prompt),
        )
        for _ in range(args.samples)
    ]
    config = LearnerConfig(
        dtype="bfloat16", max_tokens_per_micro_batch=args.length, gradient_checkpointing=True,
        logits_tile_mb=512, lora=LoraConfig() if args.lora else None,
    )  # fmt: skip
    learner = Learner(model, config, AlgorithmConfig(), pad_token_id=0, total_steps=args.steps)
    times = []
    for _ in range(args.steps + 1):
        started = time.perf_counter()
        learner.update(samples)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    seconds = statistics.median(times[1:])
    tokens = args.length * args.samples
    head = 151_936 * 1024
    body = sum(p.numel() for p in model.parameters()) - head
    attention = 12 * 28 * 16 * 128 * args.length / 2
    flops = tokens * (6 * body + attention) + 6 * head * args.samples * (args.length - prompt)
    mfu = flops / seconds / (args.peak_tflops * 1e12)
    peak_gb = torch.cuda.max_memory_allocated() / 2**30
    print(
        f"{torch.cuda.get_device_name()}: {tokens / seconds:.0f} tokens/s, MFU {mfu:.1%}, "
        f"peak {peak_gb:.1f} GiB"
    )


if __name__ == "__main__":
    main()
