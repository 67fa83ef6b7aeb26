"""Seconds and peak memory per stage of two GRPO steps on the CPU, beside the memory that is planned.

    python benchmarks/cpu_stages.py                        # the three shapes
    python benchmarks/cpu_stages.py SmolLM2-135M learner.max_tokens_per_micro_batch=2048

Random models of real shapes, real vLLM, prompts of 100 tokens as in GSM8K; a random model never ends an
answer, so all of them have `max_new_tokens`. Memory is the resident set of the trainer's process, in which
vLLM's engine runs too on the CPU. Each shape has a process of its own; KEY=VALUE overrides the config.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from learner_sides import peak_rss_mb, reset_peak_rss
from pydantic import JsonValue

Shape = Mapping[str, JsonValue]
SHAPES: Mapping[str, tuple[str, Shape, Shape]] = {  # transformers' class, its config, the rollout section
    "tiny": (
        "Qwen3",
        {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "head_dim": 32,
         "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 2048},
        {"num_prompts": 8, "num_samples": 8, "max_new_tokens": 64, "vllm": {"kv_cache_gib": 0.1}},
    ),
    "SmolLM2-135M": (
        "Llama",
        {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "head_dim": 64,
         "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152},
        {"num_prompts": 4, "num_samples": 4, "max_new_tokens": 128, "vllm": {"kv_cache_gib": 0.2}},
    ),
    "Qwen2.5-0.5B": (
        "Qwen2",
        {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
         "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936},
        {"num_prompts": 2, "num_samples": 4, "max_new_tokens": 200, "vllm": {"kv_cache_gib": 0.1}},
    ),
}  # fmt: skip
REWARD = """
from verl_lite.plugins import reward

@reward("varied", isolate=False)
def varied(rollout):
    return sum(rollout.completion_ids) % 101 / 100
"""
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def word(token_id: int) -> str:
    return f"w{token_id:06}"


def write_model(folder: Path, kind: str, shape: Shape) -> None:
    """The random model, and a tokenizer with one word per id."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    size = int(str(shape["vocab_size"]))
    words = Tokenizer(models.WordLevel({word(at): at for at in range(size)}, unk_token=word(0)))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=word(1), pad_token=word(2), chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    ends = {"eos_token_id": 1, "pad_token_id": 2, "bos_token_id": None}
    config = getattr(transformers, f"{kind}Config")(**shape, tie_word_embeddings=True, **ends)
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(folder)


def write_run(folder: Path, name: str) -> Path:
    """Model, data, reward and config; returns the config's path."""
    kind, shape, rollout = SHAPES[name]
    made = "import cpu_stages, pathlib, sys; cpu_stages.write_model(pathlib.Path(sys.argv[1]), *{!r})"
    # in a process of its own, whose memory is not the run's
    write = [sys.executable, "-c", made.format((kind, dict(shape))), str(folder / "model")]
    subprocess.run(write, check=True, cwd=Path(__file__).parent, capture_output=True)
    rng = random.Random(0)
    words = min(int(str(shape["vocab_size"])), 40_000)
    rows = [{"question": " ".join(word(rng.randrange(10, words)) for _ in range(100))} for _ in range(64)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "varied.py").write_text(REWARD)
    config = {
        "name": "stages",
        "steps": 2,
        "model": {"path": str(folder / "model")},
        "data": {"train": {"path": str(folder / "data.jsonl"), "reference": ""}},
        "rewards": {"varied": {"use": f"{folder / 'varied.py'}:varied"}},
        "rollout": {**rollout, "max_prompt_tokens": 128},
        "learner": {"max_tokens_per_micro_batch": 1024},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def measure(name: str, overrides: list[str]) -> None:
    """Train two steps; print a row per stage, and the plan."""
    from verl_lite.engine import TrainConfig, load_config, train
    from verl_lite.engine.memory_plan import plan_memory
    from verl_lite.engine.model.shape import shape_of
    from verl_lite.engine.observe.timeline import StageClock

    rows: list[tuple[str, float, float]] = []
    inner, last = StageClock.stage, time.perf_counter()

    def add(called: str) -> None:
        nonlocal last
        rows.append((called, time.perf_counter() - last, peak_rss_mb() / 1024))
        reset_peak_rss()
        last = time.perf_counter()

    @contextmanager
    def stage(self: StageClock, called: str) -> Iterator[None]:
        add("between stages" if rows else "start")
        with inner(self, called):
            yield
        add(called)

    StageClock.stage = stage  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as scratch:
        config = load_config(TrainConfig, write_run(Path(scratch), name), overrides)
        plan = plan_memory(config, shape_of(config.model), None).devices[0]
        train(config, run_dir=Path(scratch) / "run", show="quiet")
    add("checkpoint, read again")
    for called, seconds, peak in rows:
        if called != "between stages" or seconds > 1:
            print(f"| {name} | {called} | {seconds:.2f} | {peak:.2f} |")
    most = max(peak for _, _, peak in rows)
    planned = plan.total_bytes / 2**30
    print(f"| {name} | planned / measured | | {planned:.2f} / {most:.2f} = {planned / most:.2f} |")
    print(f"plan: {plan}", flush=True)


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--one"]:
        measure(arguments[1], arguments[2:])
        return
    overrides = [one for one in arguments if "=" in one]
    print("| shape | stage | seconds | peak memory, GiB |\n|---|---|---|---|", flush=True)
    for name in [one for one in arguments if one not in overrides] or SHAPES:
        command = [sys.executable, __file__, "--one", name, *overrides]
        done = subprocess.run(command, capture_output=True, text=True)
        rows = [line for line in done.stdout.splitlines() if line.startswith(("|", "plan:"))]
        if done.returncode or not rows:
            raise SystemExit(done.stderr[-3000:])
        print("\n".join(rows), flush=True)


if __name__ == "__main__":
    main()
