"""Two GRPO steps of a random model in the shape of Qwen2.5-0.5B: seconds and peak memory per stage.

The prompts are word problems of about 100 characters, one token each. Random weights learn nothing.

python benchmarks/half_billion_step.py [--sampler vllm] [--num-prompts 2] [--num-samples 4]
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from verl_lite.engine import TrainConfig, train
from verl_lite.engine.model import build_tiny_tokenizer
from verl_lite.engine.observe import StageClock

VOCAB = 151_936
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sampler", default="vllm", choices=["vllm", "transformers"])
    parser.add_argument("--num-prompts", type=int, default=2)
    parser.add_argument("--num-samples", type=int, default=4)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    args = parser.parse_args()
    peaks: dict[str, float] = {}
    StageClock.stage = _measured(StageClock.stage, peaks)  # type: ignore[method-assign]
    with TemporaryDirectory() as folder:
        _write_model(Path(folder) / "model")
        config = _config(Path(folder) / "model", args)
        run = Path(folder) / "run"
        with _peak("whole run", peaks):
            train(config, run_dir=run, show="quiet")
        steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = sorted(name for name in steps[-1] if name.startswith("time/"))
    for name in names:
        stage = name.removeprefix("time/").removesuffix("_s")
        seconds = " / ".join(f"{step[name]:.1f}" for step in steps if name in step)
        peak = f"{peaks[stage]:.1f} GiB" if stage in peaks else ""
        print(f"| {stage} | {seconds} s | {peak} |")
    print(f"peak of the run: {max(peaks.values()):.1f} GiB")


def _write_model(folder: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = build_tiny_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**SHAPE, **ends)).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _config(model: Path, args: argparse.Namespace) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "name": "half-billion",
            "steps": 2,
            "model": {"path": str(model), "dtype": "bfloat16"},
            "data": {"train": {"task": "word_problems", "num_rows": 64}},
            "rewards": {"length": {"use": "length", "options": {"target": 32}}},
            "rollout": {
                "sampler": args.sampler,
                "num_prompts": args.num_prompts,
                "num_samples": args.num_samples,
                "max_prompt_tokens": 512,
                "max_new_tokens": args.max_new_tokens,
                "vllm": {"kv_cache_gib": 0.5, "dtype": "bfloat16"},
            },
            "learner": {"dtype": "bfloat16"},
            "logging": {"trackers": []},
        }
    )


def _measured(stage, peaks):  # type: ignore[no-untyped-def]
    @contextmanager
    def measured(self: StageClock, name: str) -> Iterator[None]:
        with _peak(name, peaks), stage(self, name):
            yield

    return measured


@contextmanager
def _peak(name: str, peaks: dict[str, float]) -> Iterator[None]:
    """The largest resident memory inside, in GiB; Linux forgets the earlier peak when asked."""
    Path("/proc/self/clear_refs").write_text("5")
    yield
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    peaks[name] = max(peaks.get(name, 0.0), kib / 2**20)


if __name__ == "__main__":
    main()
