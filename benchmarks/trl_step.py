"""A whole GRPO step of ours against TRL's GRPOTrainer: same model, task, batch, lengths and reward.

    python benchmarks/trl_step.py --trl-python SCRATCH/bin/python [--steps 8]

TRL is no dependency of this project: SCRATCH is an environment with `verl-lite` and `trl` in it.
Both sides run in processes of their own, one after the other, on the same model folder (the tiny
model after a short SFT, so that completions end by themselves) with 32 prompts x 8 samples and
up to 48 new tokens, float32, AdamW, no KL term. TRL generates with `generate` on the CPU: its
colocated vLLM cannot take new weights there. The first two steps of each side are warm-up.

What the comparison leaves out: GPUs, vLLM on TRL's side (where it works it would be much faster than
`generate`), longer prompts and completions, larger models. It compares what each gives a user on a
machine without a GPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

NUM_PROMPTS, NUM_SAMPLES, NEW_TOKENS = 32, 8, 48
WARM_UP_STEPS = 2
CONFIG = Path(__file__).parent.parent / "examples" / "quickstart.yaml"


def make_model(folder: Path) -> Path:
    """The tiny model after the quickstart's SFT; returns its folder."""
    command = [str(Path(sys.executable).parent / "verl-lite"), "sft", str(CONFIG), "sft.steps=100"]
    command += ["rewards={format: {use: format, options: {pattern: think_boxed}}}"]
    subprocess.run(
        [*command, "--run-dir", str(folder / "sft")], check=True, stdout=subprocess.DEVNULL, cwd=folder
    )
    return folder / "sft" / "model"


def run_ours(model: Path, num_steps: int, folder: Path) -> list[float]:
    """Seconds of each step: rollout, reward, update, sync, records and metrics."""
    overrides = [
        f"model={{path: {model}}}",
        "sft.steps=0",
        f"steps={num_steps}",
        "data.held_out=null",
        "rewards={format: {use: format, options: {pattern: think_boxed}}}",
        "checkpoints.every_steps=0",
    ]
    command = [str(Path(sys.executable).parent / "verl-lite"), "train", str(CONFIG), *overrides]
    subprocess.run(
        [*command, "--run-dir", str(folder / "ours")], check=True, stdout=subprocess.DEVNULL, cwd=folder
    )
    lines = (folder / "ours" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["time/step_s"] for line in lines]


def run_trl(python: str, model: Path, num_steps: int, folder: Path) -> list[float]:
    """Seconds between the ends of TRL's steps (the first is left out: it has no beginning)."""
    command = [python, str(Path(__file__).resolve()), "--trl-side", str(model), "--steps", str(num_steps)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return list(json.loads((folder / "trl.json").read_text()))


def trl_side(model: str, num_steps: int) -> None:
    """What runs in TRL's process."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from verl_lite.engine.arithmetic import arithmetic_rows

    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            ends.append(time.perf_counter())

    def shape(completions: list[Any], **columns: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        return [float(text.count("\\boxed{") == 1 and text.count("</think>") == 1) for text in texts]

    rows = arithmetic_rows("train", num_rows=NUM_PROMPTS * num_steps, seed=0)
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": row["question"]}]} for row in rows])
    config = GRPOConfig(
        output_dir="trl_out",
        max_steps=num_steps,
        per_device_train_batch_size=NUM_PROMPTS * NUM_SAMPLES,
        gradient_accumulation_steps=1,
        num_generations=NUM_SAMPLES,
        max_completion_length=NEW_TOKENS,
        learning_rate=1e-4,
        beta=0.0,
        temperature=1.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        processing_class=AutoTokenizer.from_pretrained(model),
        reward_funcs=shape,
        args=config,
        train_dataset=data,
        callbacks=[Clock()],
    )
    trainer.train()
    Path("trl.json").write_text(json.dumps([b - a for a, b in pairwise(ends)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--trl-python", default=sys.executable)
    parser.add_argument("--trl-side", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trl_side:
        trl_side(arguments.trl_side, arguments.steps)
        return
    samples = NUM_PROMPTS * NUM_SAMPLES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder)
        theirs = statistics.median(
            run_trl(arguments.trl_python, model, arguments.steps, folder)[WARM_UP_STEPS - 1 :]
        )
        mine = statistics.median(run_ours(model, arguments.steps, folder)[WARM_UP_STEPS:])
    print(f"ours {mine:6.2f} s/step  {samples / mine:7.0f} samples/s")
    print(f"TRL  {theirs:6.2f} s/step  {samples / theirs:7.0f} samples/s")
    print(f"ours is {theirs / mine:.1f}x (at least 3x wanted)")
    sys.exit(int(theirs / mine < 3))


if __name__ == "__main__":
    main()
