"""Training with turns: exact resume, critic, LoRA, sampling ahead; bad input ends before a model loads."""

import io
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from verl_lite.engine import train, training
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.evals import EvalConfig, evaluate_model
from verl_lite.engine.model import ChatTemplate
from verl_lite.engine.observe import read_metrics
from verl_lite.engine.rollout import TurnsSampler
from verl_lite.engine.rollout.turns.rendering import TurnRenderer
from verl_lite.engine.testing import FakeSampler
from verl_lite.engine.tools import diagnose, write_rollouts
from verl_lite.errors import ConfigError, DataError
from verl_lite.plugins import Step, validate
from verl_lite.plugins.records import read_records
from verl_lite.plugins.testing import FakeEnvironments

ENVIRONMENT = """
from verl_lite.plugins import Step, environment

@environment("echo")
class Echo:
    def __init__(self, options, row):
        self.row, self.count = row, 0

    def reset(self):
        return self.row["prompt"]

    def step(self, message):
        self.count += 1
        ok = {"role": "user", "content": "ok"}
        return Step(messages=[ok], done=self.count == 3, details={"n": self.count})
"""
TIMED = ("time/", "rollout/tokens_per_s", "learner/tokens_per_s", "turns/waiting_share")


@pytest.fixture
def make_config(small_run: dict[str, Any], tmp_path: Path) -> Callable[..., TrainConfig]:
    """Turns of at most 6 tokens, three of them."""
    (tmp_path / "echo.py").write_text(ENVIRONMENT)
    rollout = {**small_run["rollout"], "max_new_tokens": 20, "max_context_tokens": 64, "max_turn_tokens": 6}
    data = {**small_run, "rollout": rollout, "environment": {"use": f"{tmp_path / 'echo.py'}:Echo"}}

    def make(**changes: Any) -> TrainConfig:
        return validate(TrainConfig, {**data, **changes}, source="test")

    return make


def untimed(run: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if not name.startswith(TIMED) and not name.endswith("_s")}
        for row in read_metrics(run / "metrics.jsonl")
    ]


def test_a_resumed_run_is_bitwise_the_one_that_never_stopped(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(deterministic=True, checkpoints={"every_steps": 2, "keep": 0})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config, run_dir=whole, debug_inline=True)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step_000004")
    train(config, run_dir=cut, resume=True, debug_inline=True)
    mine, yours = (
        load_file(run / "checkpoints" / "step_000004" / "policy" / "model.safetensors")
        for run in (whole, cut)
    )
    assert all(torch.equal(mine[name], yours[name]) for name in mine)
    assert untimed(whole) == untimed(cut)
    record = next(iter(read_records(whole / "rollouts" / "step_000004.parquet")))
    roles = [turn.role for turn in record.rollout.turns]
    assert roles[::2] == ["assistant"] * len(roles[::2])
    assert len(record.rollout.logprobs) == len(record.rollout.completion_ids)
    assert all((value == 0.0) != bool(bit) for value, bit in zip(
        record.rollout.logprobs, record.rollout.sampled_mask, strict=True
    ))  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": {"advantage": "gae", "critic": {}, "gae_over": "turns", "gamma": 0.9}},
        {"algorithm": {"advantage": "reinforce_pp", "kl": {"coefficient": 0.1, "placement": "reward"}}},
        {"learner": {"lora": {"rank": 2}, "optimizer": {"learning_rate": 1e-3}}},
    ],
    ids=["critic", "kl in the reward", "lora"],
)
def test_estimators_critic_and_adapters_train_on_turns(
    make_config: Callable[..., TrainConfig], tmp_path: Path, changes: dict[str, Any]
) -> None:
    train(make_config(steps=2, **changes), run_dir=tmp_path / "run", debug_inline=True)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert row["turns/mean"] >= 1
        assert row["policy/kl_sampler_trainer"] < 1e-6  # token-exact: the learner has the sampler's numbers
        assert row["canary/max_difference"] < 1e-4


@pytest.mark.parametrize(("mode", "splits"), [("one_ahead", False), ("async", True)])
def test_turns_are_sampled_while_training(
    mode: str,
    splits: bool,
    make_config: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If turns end in another token than the template's, each is a training sample, which is said once."""

    def make(prepared: Any, path: str, session: Any, **_: Any) -> TurnsSampler:
        end = 32 if splits else prepared.tokenizer.eos_token_id
        renderer = TurnRenderer(ChatTemplate(prepared.tokenizer), end_ids=(end,))
        inner = FakeSampler(
            prepared.tokenizer, write=lambda request: [30, 31, end], end_ids=(end,), num_engines=2
        )
        reply = Step(messages=[{"role": "user", "content": "ok"}])
        kit = replace(prepared.turns.kit, renderer=renderer)
        return TurnsSampler(inner, FakeEnvironments(reply=lambda _: reply, delay_s=0.005), kit)

    monkeypatch.setattr(training, "make_sampler", make)
    monkeypatch.setattr(training, "open_cluster", lambda *_: nullcontext())
    config = make_config(
        asynchrony={"mode": mode, **({"max_lag": 2} if mode == "async" else {})},
        algorithm={"importance": {"mode": "truncate"}},
        rollout={"num_engines": 2, "num_prompts": 4, "num_samples": 3, "max_prompt_tokens": 16,
                 "max_new_tokens": 20, "max_context_tokens": 64},
    )  # fmt: skip
    text = io.StringIO()
    train(config, run_dir=tmp_path / "run", debug_inline=True, console=Console(file=text, width=200))
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["turns/mean"] > 1 for row in rows)
    assert {row["turns/split_fraction"] for row in rows} == {float(splits)}
    assert text.getvalue().count("100% of the trajectories are several training samples") == splits


def test_rollout_diagnose_and_eval_sample_turns_and_count_the_models_tokens(
    make_config: Callable[..., TrainConfig], tmp_path: Path, small_model: Path
) -> None:
    """Half of the tokens end a turn, so that a random model has several."""
    model = shutil.copytree(small_model, tmp_path / "model")
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(1, 50))}))
    config = make_config(model={"path": str(model)})
    out = tmp_path / "r.parquet"
    summary = write_rollouts(config, out, num_prompts=3, num_samples=2, debug_inline=True)
    records = list(read_records(out))
    assert any(turn.role == "user" for record in records for turn in record.rollout.turns)
    sampled = [sum(record.rollout.sampled_mask) for record in records]
    assert summary.completion_tokens_mean == sum(sampled) / len(sampled)
    assert 0 < max(sampled) <= 20

    records_path = tmp_path / "d.jsonl"
    found, _ = diagnose(config, num_prompts=3, num_samples=2, records_path=records_path, debug_inline=True)
    rollouts = [record.rollout for record in read_records(records_path)]
    assert found.completion_tokens_mean == sum(one.num_sampled for one in rollouts) / len(rollouts)
    assert found.entropy == pytest.approx(
        -sum(sum(one.logprobs) for one in rollouts) / sum(one.num_sampled for one in rollouts)
    )

    fields = {name: getattr(config, name) for name in ("rollout", "environment", "rewards")}
    rows = {"rows": config.data.train[0] if isinstance(config.data.train, tuple) else config.data.train}
    result = evaluate_model(
        EvalConfig(**fields, datasets=rows, accuracy=config.accuracy_reward),
        str(model),
        out_dir=tmp_path / "eval",
        debug_inline=True,
    )
    (length,) = (one for one in result.datasets["rows"].measures if one.name == "greedy length (tokens)")
    assert 1 <= length.value <= 20


PLAIN = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"


def test_what_cannot_work_is_refused_before_a_model_loads(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    template = tmp_path / "plain.jinja"
    template.write_text(PLAIN + "{% if add_generation_prompt %}<|assistant|>{% endif %}")
    data = {"train": {"task": "arithmetic", "num_rows": 20}, "chat_template": str(template)}

    small = {"sampler": "transformers", "num_prompts": 6, "max_prompt_tokens": 16, "max_new_tokens": 20}

    def refused(match: str, error: type[Exception] = ConfigError, **changes: Any) -> None:
        run_dir = tmp_path / "run"
        with pytest.raises(error, match=match):
            train(make_config(**changes), run_dir=run_dir, debug_inline=True)
        assert not (run_dir / "model").exists()

    refused(r"cannot show a conversation .* the tool 'calculator'", tools=["calculator"], data=data)
    refused(r"tool_parser='nope': expected auto, one of", rollout={**small, "tool_parser": "nope"})
    refused(
        r"max_turn_tokens is for several turns", environment=None, rollout={**small, "max_turn_tokens": 5}
    )
    refused(
        r"max_context_tokens=16 leaves no room behind a prompt of rollout\.max_prompt_tokens=16",
        rollout={**small, "max_context_tokens": 16},
    )
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "1+1", "reference": "2", "tools": [{"function": {"name": "f"}}]}\n' * 20)
    own = {"train": {"path": str(rows)}}
    refused("which are only shown to the model", DataError, tools=["calculator"], environment={}, data=own)
