"""What the proof at start-up costs: seconds and peak memory, made and found in the cache.

    python benchmarks/proof.py

Each model is measured in a process of its own; so is a policy without a proof, which it is compared with.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

Shape = Mapping[str, Any]

SHAPES: Mapping[str, tuple[str, Shape]] = {
    "the quickstart's model": (
        "Qwen3",
        {
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 32,
            "vocab_size": 105,
        },
    ),
    "Qwen2.5-0.5B's shape": (
        "Qwen2",
        {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 151_936,
            "tie_word_embeddings": True,
        },
    ),
    "Mistral's kind, window 4,096": (
        "Mistral",
        {
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "vocab_size": 32_000,
            "sliding_window": 4096,
        },
    ),
}


def peak_mb() -> float:
    """The largest resident memory of this process so far."""
    with open("/proc/self/status", encoding="utf-8") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(name: str, *, proves: bool) -> dict[str, Any]:
    """Make the model and a policy of it; without `proves`, with a verdict that is already known."""
    import torch
    import transformers

    from verl_lite.engine.config import LearnerConfig
    from verl_lite.engine.learner import Policy, proof

    kind, shape = SHAPES[name]
    config = getattr(transformers, f"{kind}Config")(**shape)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    if not proves:
        known = proof.Arrangement(is_packed=True, attention=proof.ATTENTION_NAME)
        proof._known = lambda key: known
    before, started = peak_mb(), time.perf_counter()
    policy = Policy(model, LearnerConfig(), pad_token_id=0)
    seconds = time.perf_counter() - started
    after, started = peak_mb(), time.perf_counter()
    Policy(model, LearnerConfig(), pad_token_id=0)
    again = time.perf_counter() - started
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "is_packed": policy.is_packed,
        "seconds": seconds,
        "again_seconds": again,
        "model_mb": before,
        "peak_mb": after,
        "threads": torch.get_num_threads(),
    }


def in_its_own_process(name: str, *, proves: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--one", name, *(["--prove"] if proves else [])]
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", choices=SHAPES)
    parser.add_argument("--prove", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, proves=options.prove)))
        return
    columns = ["model", "parameters", "runs", "proof, s", "from the cache, s"]
    columns += ["peak memory, MB", "without a proof, MB", "ratio"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in SHAPES:
        made, known = (in_its_own_process(name, proves=proves) for proves in (True, False))
        form = "packed" if made["is_packed"] else "padded"
        print(
            f"| {name} | {made['parameters'] / 1e6:,.1f} M | {form} | {made['seconds']:.2f} "
            f"| {made['again_seconds']:.3f} | {made['peak_mb']:,.0f} | {known['peak_mb']:,.0f} "
            f"| {made['peak_mb'] / known['peak_mb']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
