"""SFT on ragged conversations: our tokens/s against TRL's SFTTrainer with packing, same model and data.

    python benchmarks/sft_throughput.py --trl-python SCRATCH/bin/python [--steps 12]

SCRATCH is an environment with `trl` in it (no dependency of this project). The two sides alternate, each in
its own process, on the same model folder and the same conversations, float32, AdamW, loss on
assistant turns alone, 2 threads. A step is about 4,096 tokens on both sides: ours takes 24 rows, TRL
packs ("bfd") into rows of 1,024 and takes 4 of them. Counted are the tokens of the conversations,
padding is not; the first two steps are warm-up; the figures are medians over the other steps, of tokens
by second of wall time and by second of processor time (which other programs on the machine move less).

What it leaves out: GPUs (TRL would use flash attention there), larger models and vocabularies.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

WARM_UP_STEPS, ROW_TOKENS, TRL_ROWS, OUR_ROWS = 2, 1024, 4, 24
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def conversations(count: int) -> list[dict[str, Any]]:
    """One to three turns; questions of 10 to 80 characters, answers of 10 to 300, most of them short."""
    generator = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz 0123456789+-=()"

    def text(longest: int) -> str:
        length = 10 + int((longest - 10) * generator.random() ** 3)
        return "".join(generator.choices(letters, k=length))

    rows = []
    for _ in range(count):
        chat = []
        for _ in range(generator.choice((1, 1, 2, 3))):
            chat += [{"role": "user", "content": text(80)}, {"role": "assistant", "content": text(300)}]
        rows.append({"messages": chat})
    return rows


def make_inputs(folder: Path, num_steps: int) -> None:
    from verl_lite.engine.config import TinyModelConfig
    from verl_lite.engine.model import build_tiny_model, build_tiny_tokenizer

    build_tiny_model(folder / "model", TinyModelConfig(max_context_tokens=ROW_TOKENS), seed=0)
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "model")
    lines = [json.dumps(row) for row in conversations((num_steps + 1) * OUR_ROWS * 2)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")


def our_side(folder: Path, num_steps: int) -> None:
    import torch
    from transformers import AutoTokenizer

    from verl_lite.engine.config import TrainConfig
    from verl_lite.engine.learner import Policy
    from verl_lite.engine.model import ChatTemplate, load_policy
    from verl_lite.engine.sft import SFTStep, read_sft, train_sft

    torch.set_num_threads(2)
    config = TrainConfig.model_validate(
        {
            "steps": 0,
            "model": {"path": str(folder / "model")},
            "data": {"train": {"path": str(folder / "rows.jsonl")}},
            "sft": {
                "steps": num_steps,
                "messages": "messages",
                "batch_rows": OUR_ROWS,
                "max_tokens": ROW_TOKENS,
            },
            "learner": {"max_tokens_per_micro_batch": ROW_TOKENS * TRL_ROWS},
        }
    )
    data = read_sft(config, ChatTemplate(AutoTokenizer.from_pretrained(folder / "model")))
    model = load_policy(str(folder / "model"), dtype="float32", device=torch.device("cpu"))
    ends, tokens = [now()], []

    def on_step(step: SFTStep) -> None:
        ends.append(now())
        tokens.append(step.num_tokens)

    train_sft(Policy(model, config.learner, pad_token_id=0), data, config.sft, seed=0, on_step=on_step)
    report(folder / "ours.json", ends, tokens)


def trl_side(folder: Path, num_steps: int) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(2)
    ends: list[tuple[float, float]] = []
    tokens: list[int] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            ends.append(now())

    class Counted(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
            tokens.append(int((inputs["input_ids"] != self.processing_class.pad_token_id).sum()))
            return super().training_step(model, inputs, *arguments, **options)

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    config = SFTConfig(
        output_dir=str(folder / "trl"), max_steps=num_steps, packing=True,
        per_device_train_batch_size=TRL_ROWS, max_length=ROW_TOKENS, assistant_only_loss=True,
        use_cpu=True, bf16=False, report_to="none",
        save_strategy="no", logging_strategy="no", gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    trainer = Counted(
        model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        callbacks=[Clock()],
    )  # fmt: skip
    begin = now()
    trainer.train()
    report(folder / "trl.json", [begin, *ends], tokens)


def now() -> tuple[float, float]:
    """(wall, processor) seconds; the latter of all threads of this process."""
    return time.perf_counter(), time.process_time()


def report(path: Path, ends: list[tuple[float, float]], tokens: list[int]) -> None:
    seconds = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(ends)]
    kept = list(zip(tokens, seconds, strict=True))[WARM_UP_STEPS:]
    speeds = {
        clock: statistics.median(count / spent[at] for count, spent in kept)
        for at, clock in enumerate(("wall", "cpu"))
    }
    path.write_text(json.dumps({**speeds, "tokens": tokens}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trl-python")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "trl"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.side:
        (our_side if options.side == "ours" else trl_side)(options.folder, options.steps)
        return
    speeds: dict[str, list[dict[str, float]]] = {"ours": [], "trl": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, options.steps)
        for _ in range(options.repeats):
            for side, python in (("ours", sys.executable), ("trl", options.trl_python)):
                command = [python, __file__, "--side", side, "--folder", name, "--steps", str(options.steps)]
                done = subprocess.run(command, check=False, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
                result = json.loads((folder / f"{side}.json").read_text())
                speeds[side].append(result)
                print(
                    f"{side:<5} {result['wall']:>8,.0f} tokens/s  {result['cpu']:>8,.0f} tokens/cpu-s  "
                    f"{statistics.mean(result['tokens']):,.0f} tokens/step  load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
    for clock in ("wall", "cpu"):
        ours, trl = (statistics.median(one[clock] for one in speeds[side]) for side in ("ours", "trl"))
        print(f"{clock}, median of {options.repeats}: ours {ours:,.0f}, TRL {trl:,.0f}: {ours / trl:.2f}x")


if __name__ == "__main__":
    main()
