"""The runs that fault_campaign.py breaks: a very small model in a forked process, and how two compare."""

import hashlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import accelerate.tracking  # noqa: F401 - slow imports happen once, before the forks
import pandas  # noqa: F401 - pyarrow looks for it
import pyarrow.parquet  # noqa: F401
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401

from verl_lite.engine import train
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.observe import read_metrics
from verl_lite.errors import VerlLiteError
from verl_lite.plugins import validate
from verl_lite.plugins.records import read_records

STEPS = 8
# what depends on the clock, not on the run
CLOCK = ("time/", "latency", "tokens_per_s", "workers_replaced", "retries")
REWARD = """
from verl_lite.plugins import reward

@reward("digits")
def digits(rollout):
    text = rollout.completion
    return sum(c.isdigit() for c in text) / len(text) if text else 0.0
"""


def make_config(folder: Path, *, sampler: str) -> TrainConfig:
    rewards = folder / "digits.py"
    rewards.write_text(REWARD)
    small = {"hidden_size": 32, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "intermediate_size": 64}
    data: dict[str, Any] = {
        "name": "faults",
        "steps": STEPS,
        "model": {"tiny": {**small, "max_context_tokens": 64}},
        "data": {"train": {"task": "arithmetic", "num_rows": 12}},
        "rewards": {"digits": {"use": f"{rewards}:digits"}},
        "rollout": {"sampler": sampler, "num_prompts": 4, "num_samples": 2, "vllm": {"kv_cache_gib": 0.125}},
        "learner": {"optimizer": {"learning_rate": 3e-3}},
        "checkpoints": {"every_steps": 1, "keep": 3},
        "logging": {"trackers": []},
    }
    data["rollout"] |= {"max_prompt_tokens": 16, "max_new_tokens": 12}
    return validate(TrainConfig, data, source="fault campaign")


class Process:
    """`train` in a forked process whose outcome comes back as one line of text."""

    def __init__(
        self, config: TrainConfig, run_dir: Path, *, resume: bool, inline: bool = True, file_limit: int = 0
    ) -> None:
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reader)
            _child(config, run_dir, writer, resume=resume, inline=inline, file_limit=file_limit)
        os.close(writer)

    def running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def outcome(self) -> str:
        """ "finished", "refused: <message>", "crashed: <traceback's last line>" or "killed"."""
        with os.fdopen(self._reader) as pipe:
            text = pipe.read()
        os.waitpid(self.pid, 0)
        return text or "killed"


def _child(
    config: TrainConfig, run_dir: Path, writer: int, *, resume: bool, inline: bool, file_limit: int
) -> None:
    try:
        if file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        torch.set_num_threads(1)
        with open(os.devnull, "w") as nowhere:
            train(config, run_dir=run_dir, resume=resume, debug_inline=inline, console=Console(file=nowhere))
        text = "finished"
    except VerlLiteError as error:
        text = f"refused: {error}"
    except BaseException as error:  # noqa: BLE001 - the campaign counts these as failures
        text = f"crashed: {type(error).__name__}: {error}"
    os.write(writer, text.encode()[:4000])
    os._exit(0)


def fingerprint(run_dir: Path) -> dict[str, Any]:
    """What two equal runs have in common, bit for bit."""
    weights = load_file(run_dir / "checkpoints" / f"step_{STEPS:06d}" / "policy" / "model.safetensors")
    digest = hashlib.sha256(b"".join(weights[n].numpy().tobytes() for n in sorted(weights))).hexdigest()
    metrics = [
        {name: value for name, value in row.items() if not any(word in name for word in CLOCK)}
        for row in read_metrics(run_dir / "metrics.jsonl")
    ]
    records = {
        path.name: [
            (r.rollout.id, tuple(r.rollout.completion_ids), tuple(r.rollout.logprobs), r.reward, r.advantage)
            for r in read_records(path)
        ]
        for path in sorted((run_dir / "rollouts").iterdir())
    }
    return {"weights": digest, "metrics": metrics, "records": records}


def differences(expected: dict[str, Any], got: dict[str, Any]) -> Iterator[str]:
    """What is wrong with `got`, in words."""
    steps = [row["step"] for row in got["metrics"]]
    if steps != list(range(1, STEPS + 1)):
        yield f"metric lines lost or doubled: steps {steps}"
    elif got["metrics"] != expected["metrics"]:
        yield "metrics differ"
    if sorted(got["records"]) != sorted(expected["records"]):
        yield f"record files lost or doubled: {sorted(got['records'])}"
    elif got["records"] != expected["records"]:
        yield "records differ"
    if got["weights"] != expected["weights"]:
        yield "weights differ"
