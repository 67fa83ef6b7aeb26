"""Out of memory ends a run with one message that says what to change, and the run goes on with that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from verl_lite.engine import evaluate_model, train, training
from verl_lite.engine.config import TinyModelConfig, TrainConfig
from verl_lite.engine.evals import training_config
from verl_lite.engine.learner import Learner
from verl_lite.engine.model import tiny
from verl_lite.engine.observe import read_metrics
from verl_lite.engine.rollout import TransformersSampler
from verl_lite.engine.rundir import ADVICE, FREE_FOR_MEMORY, FREE_TO_CHANGE, clear_memory_errors
from verl_lite.engine.tools import write_rollouts
from verl_lite.errors import ConfigError, RewardError, TrainingError
from verl_lite.plugins import validate

TOO_MANY_BYTES = 2**50
SMALL = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 64}


def allocate_too_much() -> None:
    torch.empty(TOO_MANY_BYTES, dtype=torch.uint8)


def config_of(**learner: Any) -> TrainConfig:
    tree = {
        "steps": 3,
        "model": {"tiny": {**SMALL, "max_context_tokens": 32}},
        "data": {"train": {"task": "arithmetic", "num_rows": 8}},
        "rewards": {"format": {"use": "format"}},
        "rollout": {
            "sampler": "transformers",
            "num_prompts": 4,
            "num_samples": 2,
            "max_prompt_tokens": 16,
            "max_new_tokens": 8,
        },
        "learner": learner,
        "checkpoints": {"every_steps": 1},
        "logging": {"trackers": []},
    }
    return validate(TrainConfig, tree, source="test")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"), "2.00 GiB."),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "you tried"),
    ],
)
def test_every_kind_of_it_is_told_the_same_way(error: Exception, reason: str) -> None:
    with pytest.raises(TrainingError) as told, clear_memory_errors("updating", step=7):
        raise error
    message = str(told.value)
    assert message.startswith("step 7: out of memory while updating (")
    assert f"{reason})" in message
    assert "lower learner.max_tokens_per_micro_batch" in message
    assert "\n" not in message


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), RewardError("judge: out of memory")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), clear_memory_errors("generating"):
        raise error


def test_the_real_allocator_s_error_is_known() -> None:
    with (
        pytest.raises(TrainingError, match=r"out of memory while starting the sampler .*kv_cache_gib"),
        clear_memory_errors("starting the sampler"),
    ):
        allocate_too_much()


@pytest.mark.parametrize("where", ["generating", "updating"])
def test_the_run_stops_with_one_message_and_goes_on_with_less(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_the_third(old: Callable[..., Any]) -> Callable[..., Any]:
        calls = []

        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                allocate_too_much()
            return old(*arguments, **options)

        return call

    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        if where == "updating":
            patch.setattr(Learner, "update", at_the_third(Learner.update))
        else:
            patch.setattr(TransformersSampler, "generate", at_the_third(TransformersSampler.generate))
        with pytest.raises(TrainingError, match=f"^step 3: out of memory while {where} .*--resume"):
            train(config_of(), run_dir=run_dir, debug_inline=True)
    with pytest.raises(ConfigError, match="learner differ from what"):
        train(config_of(logits_tile_mb=1), run_dir=run_dir, resume=True, debug_inline=True)
    smaller = config_of(max_tokens_per_micro_batch=32, gradient_checkpointing=True)
    train(smaller, run_dir=run_dir, resume=True, debug_inline=True)
    assert [row["step"] for row in read_metrics(run_dir / "metrics.jsonl")] == [1, 2, 3]


STAGES: dict[str, tuple[object, str]] = {
    "loading the policy": (training, "load_policy"),
    "starting the sampler": (training, "make_sampler"),
    "loading the new weights": (TransformersSampler, "load_weights"),
    "generating": (TransformersSampler, "generate"),
    "updating": (Learner, "update"),
}


@pytest.mark.parametrize("where", ADVICE)
def test_every_stage_of_a_run_is_named(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*STAGES[where], lambda *arguments, **options: allocate_too_much())
    with pytest.raises(TrainingError, match=rf"^(step \d: )?out of memory while {where} .*and use --resume"):
        train(config_of(), run_dir=tmp_path / "run", debug_inline=True)


@pytest.mark.parametrize("where", ["starting the sampler", "generating"])
def test_so_do_commands_that_do_not_train(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which have no checkpoint to continue from."""
    config = config_of()
    tiny.build_tiny_model(tmp_path / "model", TinyModelConfig(**SMALL, max_context_tokens=32), seed=0)
    target = STAGES["generating"] if where == "generating" else (TransformersSampler, "__init__")
    monkeypatch.setattr(*target, lambda *arguments, **options: allocate_too_much())
    message = f"^out of memory while {where} .*and start it again$"
    with pytest.raises(TrainingError, match=message):
        write_rollouts(config, tmp_path / "out.parquet", debug_inline=True)
    held_out = config.data.model_copy(update={"held_out": config.data.train})
    measured = training_config(config.model_copy(update={"data": held_out}))
    with pytest.raises(TrainingError, match=message):
        evaluate_model(measured, str(tmp_path / "model"), debug_inline=True)


def test_what_the_messages_name_may_be_changed() -> None:
    advice = " ".join(ADVICE.values())
    for path in FREE_FOR_MEMORY:
        assert path in advice
        assert path in FREE_TO_CHANGE
