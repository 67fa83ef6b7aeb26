"""DPO and reward models from a file of preferences to a saved folder, on a very small model."""

import json
import math
import os
import re
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from typer.testing import CliRunner

from verl_lite.cli.app import app
from verl_lite.engine import TrainingSample
from verl_lite.engine.config import LearnerConfig
from verl_lite.engine.data import arithmetic_rows, worked_answer
from verl_lite.engine.learner import Policy
from verl_lite.engine.model import ChatTemplate, build_tiny_tokenizer
from verl_lite.engine.observe import DisplayMode, MetricsLog, read_metrics
from verl_lite.engine.preference import (
    DPOConfig,
    PreferenceConfig,
    RewardModelConfig,
    ScoringHead,
    chat_ids,
    load_scoring_model,
    read_rankings,
    reply_ids,
    sequence_logprobs,
    train_dpo,
    train_reward_model,
    with_reference,
)
from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.preferences import to_preference
from verl_lite.plugins import Message, RewardsConfig, Rollout, Scorer, validate

Rows = list[dict[str, Any]]


def ranking_rows(count: int = 24) -> Rows:
    """The right answer, a wrong one with a scratch line, and one without: 1, 2, 3."""
    rows = []
    for row in arithmetic_rows("held_out", num_rows=count, seed=0):
        a, b = map(int, row["question"][:-1].split("+"))
        answers = [worked_answer(a, b + 1), worked_answer(a, b), "no idea"]
        rows.append({"prompt": row["question"], "completions": answers, "ranks": [2, 1, 3]})
    return rows


def pair_rows(count: int = 24) -> Rows:
    return [
        {"prompt": row["prompt"], "chosen": row["completions"][1], "rejected": row["completions"][2]}
        for row in ranking_rows(count)
    ]


@pytest.fixture
def options(small_model: Path, tmp_path: Path) -> Any:
    def make(rows: Rows, **changes: Any) -> dict[str, Any]:
        path = tmp_path / "preferences.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = {"train": {"path": str(path)}, "max_tokens": 80, "held_out_fraction": 0.25}
        learner = {"optimizer": {"learning_rate": 3e-3}, **changes.pop("learner", {})}
        return {
            "model": {"path": str(small_model)},
            "data": data | changes.pop("data", {}),
            "batch_rows": 8,
            "learner": learner,
            "trackers": (),
            **changes,
        }

    return make


def quiet() -> Console:
    return Console(file=StringIO(), width=100)


def test_dpo_prefers_the_chosen_and_the_reference_stays(options: Any, tmp_path: Path, tokenizer: Any) -> None:
    config = DPOConfig(**options(pair_rows(), steps=8, evaluate_every_steps=4))
    result = train_dpo(config, run_dir=tmp_path / "run", console=quiet())
    assert result.metrics["held_out/loss"]["before"] == pytest.approx(0.6931, abs=1e-4)
    assert result.metrics["held_out/margin"]["before"] == pytest.approx(0.0, abs=1e-5)
    assert result.metrics["held_out/accuracy"]["after"] == 1.0
    assert result.metrics["held_out/margin"]["after"] > 0.5
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert "held_out/accuracy" in rows[3]
    assert "held_out/accuracy" not in rows[4]
    # the held-out margin again, from nothing but the two saved models
    rankings = read_rankings(config, ChatTemplate(tokenizer), reply_ids).held_out
    policies = [
        Policy(AutoModelForCausalLM.from_pretrained(path), LearnerConfig(), pad_token_id=0)
        for path in (config.model.path, result.model_dir)
    ]
    with torch.no_grad():
        ref, now = (
            torch.stack([sequence_logprobs(p, ranking.samples) for ranking in rankings]) for p in policies
        )
    margin = config.beta * ((now - ref)[:, 0] - (now - ref)[:, 1]).mean()
    assert margin.item() == pytest.approx(result.metrics["held_out/margin"]["after"], rel=1e-3)


RUNS: dict[str, tuple[type[PreferenceConfig], Any]] = {
    "dpo": (DPOConfig, train_dpo),
    "reward-model": (RewardModelConfig, train_reward_model),
}


@pytest.mark.parametrize("command", list(RUNS))
def test_a_run_is_shown_as_lines_as_json_or_hardly_at_all(
    command: str, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # which would be a note of its own
    kind, start = RUNS[command]
    said = {}
    for show in ("auto", "quiet", "json"):
        text = StringIO()
        config = kind(**options(pair_rows(8), steps=2, batch_rows=2, name="small"))
        start(config, run_dir=tmp_path / show, console=Console(file=text, width=200), show=show)
        said[show] = text.getvalue()
    model = f"the model is in {tmp_path / 'auto' / 'model'}/"
    assert re.search(r"step    1/2  loss 0.\d{4}  accuracy ", said["auto"])
    assert "6 rows to train on (6 pairs), 2 held out, 2 steps" in said["quiet"]
    assert "step    1/2" not in said["quiet"]
    assert "held-out pairs" in said["quiet"]  # the table
    assert said["auto"].splitlines()[-1].endswith(model)
    objects = [json.loads(line) for line in said["json"].splitlines()]
    assert [one["kind"] for one in objects] == ["note", "preference_step", "preference_step", "summary"]
    rows = [row for row in read_metrics(tmp_path / "json" / "metrics.jsonl") if "train/loss" in row]
    steps = [{**one} for one in objects if one["kind"] == "preference_step"]
    assert [(one["step"], one["num_steps"], one["train/loss"]) for one in steps] == [
        (row["step"], 2, row["train/loss"]) for row in rows
    ]
    summary = json.loads((tmp_path / "json" / "summary.json").read_text())
    assert objects[-1] == {"kind": "summary", **summary}
    assert list(summary) == ["name", "steps", "seconds", "metrics"]


@pytest.mark.parametrize("show", ["auto", "json"])
@pytest.mark.parametrize("command", list(RUNS))
def test_ctrl_c_names_the_command_that_continues(
    command: str, show: DisplayMode, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, start = RUNS[command]
    run, text, write = tmp_path / "run", StringIO(), MetricsLog.log

    def interrupted(self: MetricsLog, metrics: Any, *, step: int) -> None:
        write(self, metrics, step=step)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "log", interrupted)
        config = kind(**options(pair_rows(8), steps=3, batch_rows=2))
        result = start(config, run_dir=run, console=Console(file=text, width=200), show=show)
    assert (result.model_dir, result.metrics) == (None, {})
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000001"]
    continued = f"verl-lite {command} {run / 'config.yaml'} --run-dir {run} --resume"
    last = text.getvalue().splitlines()[-1]
    if show == "json":
        assert json.loads(last) == {"kind": "summary", "stopped": True, "continue_with": continued}
    else:
        assert last == f"stopped; continue with: {continued}"
    assert CliRunner().invoke(app, continued.split()[1:]).exit_code == 0
    assert (run / "model" / "model.safetensors").is_file()


def test_a_deterministic_one_is(options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        train_dpo(
            DPOConfig(**options(pair_rows(8), steps=1, deterministic=True)),
            run_dir=tmp_path / "run",
            console=quiet(),
        )
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_another_reference_is_used(options: Any, tmp_path: Path, small_model: Path) -> None:
    other = AutoModelForCausalLM.from_pretrained(small_model)
    with torch.no_grad():
        other.model.norm.weight.mul_(2.0)
    other.save_pretrained(tmp_path / "other")
    config = DPOConfig(**options(pair_rows(), steps=1, reference=str(tmp_path / "other")))
    result = train_dpo(config, run_dir=tmp_path / "run", console=quiet())
    assert abs(result.metrics["held_out/margin"]["before"]) > 1e-3


def test_sequence_logprobs_are_those_of_transformers(options: Any, small_model: Path, tokenizer: Any) -> None:
    config = PreferenceConfig(**options(ranking_rows(3), data={"held_out_fraction": 0.0}))
    rankings = read_rankings(config, ChatTemplate(tokenizer), reply_ids).train
    model = AutoModelForCausalLM.from_pretrained(small_model)
    policy = Policy(model, LearnerConfig(), pad_token_id=0)
    reference = [one.reference_K for one in with_reference(rankings, policy)]
    plain = AutoModelForCausalLM.from_pretrained(small_model)
    for ranking, sums in zip(rankings, reference, strict=True):
        for sample, found in zip(ranking.samples, sums, strict=True):
            ids = torch.tensor([[*sample.prompt_ids, *sample.completion_ids]])
            logprobs = plain(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            expected = logprobs[len(sample.prompt_ids) - 1 :].sum().item()
            assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", ["bradley_terry", "plackett_luce"])
@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8}])
def test_a_reward_model_ranks_and_loads_in_transformers(
    options: Any, tmp_path: Path, tokenizer: Any, loss: str, lora: Any
) -> None:
    config = RewardModelConfig(
        **options(ranking_rows(), steps=12, loss=loss, learner={"lora": lora}, centring=0.05)
    )
    result = train_reward_model(config, run_dir=tmp_path / "run", console=quiet())
    assert result.metrics["held_out/loss"]["before"] == pytest.approx(
        (0.6931 if loss == "bradley_terry" else (1.0986 + 0.6931) / 2), abs=1e-3
    )
    assert result.metrics["held_out/accuracy"]["before"] == pytest.approx(0.5)
    assert result.metrics["held_out/accuracy"]["after"] > 0.6
    bins = json.loads((tmp_path / "run" / "calibration.json").read_text())
    assert sum(one["count"] for one in bins) == 6 * 3  # the pairs of the held-out rankings
    assert all(one["low"] <= one["mean_score"] <= one["high"] for one in bins)
    gap = sum(abs(one["mean_score"] - one["share"]) * one["count"] for one in bins) / 18
    assert gap >= result.metrics["held_out/calibration_error"]["after"] - 1e-9  # finer bins, no smaller gap
    # the folder, read as the reward_model reward reads it: rendered, padded, one batch
    model, report = AutoModelForSequenceClassification.from_pretrained(
        result.model_dir, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.num_labels == 1
    rankings = read_rankings(config, ChatTemplate(tokenizer), chat_ids).held_out
    margins = []
    for ranking in rankings:
        rows = [[*s.prompt_ids, *s.completion_ids] for s in ranking.samples]
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[model.config.pad_token_id] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        scores = model(input_ids=ids, attention_mask=mask).logits[:, 0].tolist()
        margins.append(sum(scores[i] - scores[j] for i, j in ranking.pairs) / len(ranking.pairs))
    expected = result.metrics["held_out/margin"]["after"]
    assert sum(margins) / len(margins) == pytest.approx(expected, rel=1e-3)


def test_a_saved_reward_model_can_be_trained_on(options: Any, tmp_path: Path) -> None:
    config = RewardModelConfig(**options(pair_rows(), steps=4))
    first = train_reward_model(config, run_dir=tmp_path / "first", console=quiet())
    again = config.model_copy(
        update={"model": config.model.model_copy(update={"path": str(first.model_dir)})}
    )
    second = train_reward_model(again, run_dir=tmp_path / "second", console=quiet())
    before = second.metrics["held_out/margin"]["before"]
    assert before == pytest.approx(first.metrics["held_out/margin"]["after"], rel=1e-4)


@pytest.mark.parametrize("backend", ["packed", "padded"])
def test_micro_batches_change_no_gradient(
    options: Any, small_model: Path, tokenizer: Any, backend: str
) -> None:
    config = RewardModelConfig(**options(ranking_rows(6), data={"held_out_fraction": 0.0}))
    rankings = read_rankings(config, ChatTemplate(tokenizer), chat_ids).train
    samples = [sample for ranking in rankings for sample in ranking.samples]

    def scores(**learner: Any) -> torch.Tensor:
        model = load_scoring_model(
            str(small_model), dtype="float32", device=torch.device("cpu"), pad_token_id=0
        )
        torch.manual_seed(0)
        torch.nn.init.normal_(model.score.weight)
        return ScoringHead(model, LearnerConfig(**learner), pad_token_id=0).score(samples).detach()

    whole = scores()
    torch.testing.assert_close(
        scores(backend=backend, max_tokens_per_micro_batch=100), whole, rtol=1e-4, atol=1e-4
    )


def test_the_template_of_the_reward_is_the_template_of_training(tokenizer: Any) -> None:
    row = to_preference({"prompt": "1+1=", "chosen": "2", "rejected": "23"})
    whole = [tokenizer.decode([*prompt, *rest]) for prompt, rest in chat_ids(ChatTemplate(tokenizer), row)]
    assert whole == ["<|user|>1+1=<|end|><|assistant|>2<|end|>", "<|user|>1+1=<|end|><|assistant|>23<|end|>"]
    (prompt, first), (_, second) = chat_ids(ChatTemplate(tokenizer), row)
    assert tokenizer.decode(prompt) == "<|user|>1+1=<|end|><|assistant|>2"
    assert (tokenizer.decode(first), tokenizer.decode(second)) == ("<|end|>", "3<|end|>")
    sampled = [tokenizer.decode([*prompt, *rest]) for prompt, rest in reply_ids(ChatTemplate(tokenizer), row)]
    assert sampled == whole


def test_ties_and_long_rows_are_counted_and_prompts_never_on_both_sides(options: Any, tokenizer: Any) -> None:
    rows = [*ranking_rows(8), *ranking_rows(8), {**ranking_rows(1)[0], "ranks": [1, 1, 1]}]
    rows.append({"prompt": "1+1=", "chosen": "2" * 90, "rejected": "3"})
    config = PreferenceConfig(**options(rows, data={"overlong": "drop"}))
    found = read_rankings(config, ChatTemplate(tokenizer), reply_ids)
    assert (found.num_tied, found.num_dropped) == (1, 1)
    assert (len(found.train), len(found.held_out)) == (12, 4)
    assert not {r.prompt for r in found.train} & {r.prompt for r in found.held_out}
    with pytest.raises(DataError, match=r"row 17: 98 tokens, more than data.max_tokens=80"):
        read_rankings(PreferenceConfig(**options(rows)), ChatTemplate(tokenizer), reply_ids)


def test_rows_that_are_no_preferences(options: Any, tokenizer: Any) -> None:
    def refused(row: dict[str, Any]) -> str:
        with pytest.raises(DataError) as error:
            read_rankings(PreferenceConfig(**options([row])), ChatTemplate(tokenizer), reply_ids)
        return str(error.value)

    assert "row 0: expected 'completions' and 'ranks', or 'chosen'" in refused({"prompt": "1"})
    assert "expected at least two completions, got 1" in refused(
        {"prompt": "1", "completions": ["a"], "ranks": [1]}
    )
    assert "no row is left (1 had only ties" in refused(
        {"prompt": "1", "completions": ["a", "b"], "ranks": [1, 1]}
    )
    assert "1 ranked equal completions" in refused({"prompt": "1+1=", "chosen": "2", "rejected": "2"})
    with pytest.raises(ConfigError, match="of 1 prompts leaves one side empty"):
        read_rankings(PreferenceConfig(**options(pair_rows(1))), ChatTemplate(tokenizer), reply_ids)


def test_the_reward_model_reward_loads_the_folder(options: Any, tmp_path: Path) -> None:
    config = RewardModelConfig(**options(ranking_rows(), steps=8))
    result = train_reward_model(config, run_dir=tmp_path / "run", console=quiet())
    kept = ranking_rows()[0]
    rewards = RewardsConfig.model_validate(
        {"rewards": {"learned": {"use": "reward_model", "options": {"model": str(result.model_dir)}}}}
    )
    prompt = [Message(role="user", content=kept["prompt"])]
    rollouts = [Rollout(prompt=prompt, completion=text, group="a") for text in kept["completions"]]
    with Scorer(rewards, debug_inline=True) as scorer:
        found = [row.reward for row in scorer.score(rollouts).rows]
    head = ScoringHead(
        load_scoring_model(
            str(result.model_dir), dtype="float32", device=torch.device("cpu"), pad_token_id=0
        ),
        LearnerConfig(),
        pad_token_id=0,
    )
    rows = chat_ids(ChatTemplate(build_tiny_tokenizer()), to_preference(kept))
    samples = [TrainingSample(prompt_ids=ids, completion_ids=rest) for ids, rest in rows]
    assert found == pytest.approx(head.score(samples).tolist(), rel=1e-4, abs=1e-5)


def test_equal_completions_are_no_pair_and_are_said(options: Any, tokenizer: Any, tmp_path: Path) -> None:
    """As chosen and rejected they teach nothing; in a longer ranking the other pairs still count."""
    rows = pair_rows(8)
    rows += [{**row, "rejected": row["chosen"]} for row in pair_rows(3)]
    rows.append({"prompt": "1+1=", "completions": ["2", "3", "2"], "ranks": [1, 2, 3]})
    found = read_rankings(PreferenceConfig(**options(rows)), ChatTemplate(tokenizer), reply_ids)
    assert (found.num_same, found.num_tied, found.num_dropped) == (3, 0, 0)
    together = [*found.train, *found.held_out]
    assert len(together) == 9
    assert [ranking.pairs for ranking in together if len(ranking.ranks) == 3] == [[(0, 1), (1, 2)]]
    text = StringIO()
    config = DPOConfig(**options(rows, steps=1))
    train_dpo(config, run_dir=tmp_path / "run", console=Console(file=text, width=200))
    assert "left out: 3 that rank equal completions" in text.getvalue()


@pytest.mark.parametrize(
    ("learner", "reason"),
    [
        ({"num_ranks": 4}, "learner.num_ranks=4: training on preferences runs in one process"),
        ({"lora": {"quantize": True}}, "lora.quantize is not supported for training on preferences"),
        ({"optimizer": {"betas": [2, 3]}}, "betas=[2.0, 3.0]: expected two numbers"),
    ],
)
@pytest.mark.parametrize("kind", [DPOConfig, RewardModelConfig])
def test_what_the_learner_section_has_no_meaning_for(
    kind: type[PreferenceConfig], learner: dict[str, Any], reason: str, options: Any
) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)):
        validate(kind, options(pair_rows(2), learner=learner), source="config.yaml")


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        (DPOConfig, {"beta": math.inf}, "beta: input should be a finite number"),
        (RewardModelConfig, {"margin_scale": math.inf}, "margin_scale: input should be a finite number"),
        (DPOConfig, {"checkpoints": {"keep_best": "held_out/acuracy"}}, "is not a metric of training on"),
    ],
)
def test_numbers_and_metrics_that_are_none(
    kind: type[PreferenceConfig], change: dict[str, Any], reason: str, options: Any
) -> None:
    with pytest.raises(ConfigError, match=reason):
        validate(kind, {**options(pair_rows(2)), **change}, source="config.yaml")
