"""A whole GRPO step of ours against TRL's GRPOTrainer: same model, task, batch, lengths and reward.

    python benchmarks/trl_step.py --trl-python SCRATCH/bin/python [--steps 8] [--dtype bfloat16] [changes]

Changes are `key.path=value`s of our config.

TRL is no dependency of this project: SCRATCH is an environment with `verl-lite` and `trl` in it.
Both sides run in processes of their own, one after the other, on the same model folder (the tiny
model after a short SFT, so that completions end by themselves) with 32 prompts x 8 samples and
up to 48 new tokens, AdamW, no KL term, in float32 or each in its bfloat16 mode (TRL: bf16=True; ours: the
learner's and the sampler's dtype). TRL generates with `generate` on the CPU: its colocated vLLM cannot
take new weights there. The first two steps of each side are warm-up.

What the comparison leaves out: GPUs, vLLM on TRL's side (where it works it would be much faster than
`generate`), longer prompts and completions, larger models. It compares what each gives a user on a
machine without a GPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

NUM_PROMPTS, NUM_SAMPLES, NEW_TOKENS = 32, 8, 48
WARM_UP_STEPS = 2
CONFIG = Path(__file__).parent.parent / "examples" / "quickstart.yaml"
SHAPE_REWARD = "{format: {use: format, options: {pattern: think_boxed}}}"


class Step(NamedTuple):
    wall_s: float
    cpu_s: float


def make_model(folder: Path) -> Path:
    """The tiny model after the quickstart's SFT; returns its folder."""
    command = [str(Path(sys.executable).parent / "verl-lite"), "sft", str(CONFIG), "sft.steps=100"]
    command += [f"rewards={SHAPE_REWARD}", "--run-dir", str(folder / "sft")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return folder / "sft" / "model"


def run_side(
    python: str, side: str, model: Path, num_steps: int, dtype: str, changes: Sequence[str], folder: Path
) -> Step:
    """The median step of one side, in a process of its own."""
    command = [python, str(Path(__file__).resolve()), "--side", side, "--model", str(model), "--dtype", dtype]
    command += changes
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # idle threads sleep: CPU time is work
    subprocess.run(
        [*command, "--steps", str(num_steps)],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        env=environment,
    )
    ends = [Step(*pair) for pair in json.loads((folder / f"{side}.json").read_text())][WARM_UP_STEPS - 1 :]
    return Step(
        wall_s=statistics.median(after.wall_s - before.wall_s for before, after in pairwise(ends)),
        cpu_s=statistics.median(after.cpu_s - before.cpu_s for before, after in pairwise(ends)),
    )


def now() -> Step:
    """The clocks: wall, and CPU of all threads of this process."""
    return Step(wall_s=time.perf_counter(), cpu_s=time.process_time())


def our_side(model: str, num_steps: int, dtype: str, changes: Sequence[str]) -> list[Step]:
    """What runs in our process; the ends of the steps."""
    from verl_lite.engine import train
    from verl_lite.engine.config import TrainConfig
    from verl_lite.engine.observe import MetricsLog
    from verl_lite.plugins import load_config

    ends: list[Step] = []
    log = MetricsLog.log

    def log_and_note(self: MetricsLog, *arguments: Any, **options: Any) -> None:
        log(self, *arguments, **options)  # the last thing a step does
        ends.append(now())

    MetricsLog.log = log_and_note  # type: ignore[method-assign]
    overrides = [
        f"model={{path: {model}}}",
        "sft.steps=0",
        f"steps={num_steps}",
        "data.held_out=null",
        f"rewards={SHAPE_REWARD}",
        "checkpoints.every_steps=0",
        f"learner.dtype={dtype}",
        f"rollout.vllm.dtype={dtype}",
        *changes,
    ]
    train(load_config(TrainConfig, CONFIG, overrides), run_dir=Path("ours"))
    return ends


def trl_side(model: str, num_steps: int, dtype: str, changes: Sequence[str]) -> list[Step]:
    """What runs in TRL's process; the ends of the steps."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from verl_lite.engine.data import arithmetic_rows

    ends: list[Step] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            ends.append(now())

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
        bf16=dtype == "bfloat16",
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
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("changes", nargs="*", metavar="key.path=value")
    parser.add_argument("--trl-python", default=sys.executable)
    parser.add_argument("--side", choices=["ours", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run = our_side if arguments.side == "ours" else trl_side
        ends = run(arguments.model, arguments.steps, arguments.dtype, arguments.changes)
        Path(f"{arguments.side}.json").write_text(json.dumps(ends))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder)
        steps, dtype = arguments.steps, arguments.dtype
        theirs = run_side(arguments.trl_python, "trl", model, steps, dtype, [], folder)
        ours = run_side(sys.executable, "ours", model, steps, dtype, arguments.changes, folder)
    samples = NUM_PROMPTS * NUM_SAMPLES
    print("| | s/step | samples/s | CPU s/step |\n|---|---|---|---|")
    for side, step in (("TRL", theirs), ("verl-lite", ours)):
        print(f"| {side} | {step.wall_s:.2f} | {samples / step.wall_s:.0f} | {step.cpu_s:.2f} |")
    ratio = theirs.wall_s / ours.wall_s
    print(
        f"{ratio:.1f}x the samples/s (at least 4x wanted), 1/{theirs.cpu_s / ours.cpu_s:.1f} of the CPU time"
    )
    sys.exit(int(ratio < 4))


if __name__ == "__main__":
    main()
