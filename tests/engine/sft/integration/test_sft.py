"""SFT's loss is transformers' own with -100 labels; its variants by hand; mixtures, early stop, LoRA."""

import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from verl_lite.engine import train_only_sft
from verl_lite.engine.config import LearnerConfig, LoraConfig, OptimizerConfig, SFTConfig, TrainConfig
from verl_lite.engine.learner import Policy
from verl_lite.engine.model import ChatTemplate, add_adapters
from verl_lite.engine.sft import (
    IGNORED,
    SFTData,
    SFTExample,
    SFTSource,
    SFTStep,
    SFTStream,
    as_sample,
    backward,
    describe_example,
    read_sft,
    token_factors,
    train_sft,
    trained_part,
    validation_loss,
)
from verl_lite.errors import ConfigError, DataError, TrainingError
from verl_lite.plugins import validate
from verl_lite.plugins.records import read_records

SMALL = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 128}


def config_of(sft: dict[str, Any], data: dict[str, Any] | None = None, **changes: Any) -> TrainConfig:
    tree = {
        "steps": 0,
        "model": {"tiny": {**SMALL, "max_context_tokens": 128}},
        "data": {"train": data or {"task": "arithmetic", "num_rows": 12}},
        "sft": {"steps": 1, **sft},
        "rollout": {"max_prompt_tokens": 64, "max_new_tokens": 64},
        "logging": {"trackers": []},
        **changes,
    }
    return validate(TrainConfig, tree, source="test")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path), "reference": ""}


@pytest.fixture
def examples(tokenizer: Any) -> list[SFTExample]:
    return list(read_sft(config_of({}), ChatTemplate(tokenizer)).sources[0].examples)


@pytest.fixture
def multi_turn(tokenizer: Any, tmp_path: Path) -> list[SFTExample]:
    chats = [
        [
            {"role": "user", "content": "ab" * n},
            {"role": "assistant", "content": "xyz"},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "1" * n},
        ]
        for n in (1, 4, 7)
    ]
    data = write_rows(tmp_path / "chats.jsonl", [{"messages": chat} for chat in chats])
    return list(
        read_sft(config_of({"messages": "messages"}, data), ChatTemplate(tokenizer)).sources[0].examples
    )


def data_of(examples: list[SFTExample], validation: list[SFTExample] | None = None) -> SFTData:
    return SFTData(sources=[SFTSource(name="sft", examples=examples)], validation=validation or [])


def small_policy(folder: Path, *, max_tokens: int = 16_384, backend: Any = "packed") -> Policy:
    model = AutoModelForCausalLM.from_pretrained(folder)
    learner = LearnerConfig(max_tokens_per_micro_batch=max_tokens, backend=backend)
    return Policy(model, learner, pad_token_id=0)


def reference_loss(model: Any, examples: list[SFTExample]) -> torch.Tensor:
    width = max(len(example.input_ids) for example in examples)
    ids = torch.tensor([[*e.input_ids, *[0] * (width - len(e.input_ids))] for e in examples])
    labels = torch.tensor([[*e.labels, *[IGNORED] * (width - len(e.labels))] for e in examples])
    loss: torch.Tensor = model(input_ids=ids, labels=labels).loss
    return loss


def test_a_row_is_the_template_s_chat_with_the_prompt_masked(tokenizer: Any) -> None:
    from verl_lite.engine.data import read_rows

    config = config_of({})
    row = read_rows(config.data.train, seed=0)[0]
    data = read_sft(config, ChatTemplate(tokenizer))
    example = data.sources[0].examples[0]
    chat = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    assert example.input_ids == tokenizer.apply_chat_template(chat, return_dict=False)
    assert describe_example(example, tokenizer) == [
        (False, f"<|user|>{row['question']}<|end|><|assistant|>"),
        (True, f"{row['answer']}<|end|>"),
    ]
    assert f"  + '{row['answer']}<|end|>'".replace("\\", "\\\\") in data.notes


@pytest.mark.parametrize("backend", ["packed", "padded"])
@pytest.mark.parametrize("max_tokens", [16_384, 40])
def test_loss_and_gradient_are_those_of_transformers_with_masked_labels(
    small_model: Path, multi_turn: list[SFTExample], examples: list[SFTExample], max_tokens: int, backend: str
) -> None:
    """Also for many turns, packed in one row (no token sees another row) or cut into micro-batches."""
    rows = [*multi_turn, *examples[:3]]
    reference = AutoModelForCausalLM.from_pretrained(small_model)
    expected = reference_loss(reference, rows)
    expected.backward()  # type: ignore[no-untyped-call]
    policy = small_policy(small_model, max_tokens=max_tokens, backend=backend)
    loss, num_trained = backward(policy, rows, "token_mean")
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    assert num_trained == sum(label != IGNORED for row in rows for label in row.labels)
    gradients = {name: p.grad for name, p in reference.named_parameters()}
    for name, parameter in policy.model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5)


def test_loss_kinds_by_hand() -> None:
    weights = [[1.0, 0.0, 3.0], [1.0]]
    # -log p of 2 and 4 in row one, 6 in row two
    nll = [[2.0, 9.0, 4.0], [6.0]]

    def loss(kind: str) -> float:
        factors = token_factors(weights, kind)
        return sum(f * x for row, xs in zip(factors, nll, strict=True) for f, x in zip(row, xs, strict=True))

    assert loss("token_mean") == pytest.approx((2 + 3 * 4 + 6) / 5)
    assert loss("row_mean") == pytest.approx(((2 + 3 * 4) / 4 + 6) / 2)
    assert loss("sequence") == pytest.approx((2 + 3 * 4 + 6) / 2)


def test_spans_weigh_their_tokens(tokenizer: Any) -> None:
    spans = [{"tag": "think", "weight": 0.5}, {"pattern": r"\d+(?=\})", "weight": 3.0}]
    example = read_sft(config_of({"loss": {"spans": spans}}), ChatTemplate(tokenizer)).sources[0].examples[0]
    by_token = [(tokenizer.decode([i]), w) for i, w in zip(example.input_ids, example.weights_T, strict=True)]
    start = next(at for at, (_, weight) in enumerate(by_token) if weight)
    text = tokenizer.decode(example.input_ids[start:])
    answer = text[text.index("\\boxed{") + 7 : text.index("}")]
    assert {weight for _, weight in by_token[:start]} == {0.0}
    assert by_token[start] == ("<think>", 0.5)
    assert [token for token, weight in by_token if weight == 3.0] == list(answer)
    assert [token for token, weight in by_token if weight == 1.0] == ["\\boxed{", "}", "<|end|>"]


def test_turns_of_others_cost_no_logits(small_model: Path, multi_turn: list[SFTExample]) -> None:
    samples, weights = zip(*map(as_sample, multi_turn), strict=True)
    policy = small_policy(small_model)
    (batch,) = policy.micro_batches(samples)
    part, factors_N = trained_part(batch, weights)
    trained = sum(label != IGNORED for row in multi_turn for label in row.labels)
    assert len(part.targets_N) == len(factors_N) == trained < len(batch.targets_N)


def test_the_loss_falls_and_the_seed_fixes_the_result(small_model: Path, examples: list[SFTExample]) -> None:
    def run(seed: int) -> tuple[list[float], torch.Tensor]:
        policy = small_policy(small_model)
        losses: list[float] = []
        config = SFTConfig(steps=15, batch_rows=8, optimizer=OptimizerConfig(learning_rate=1e-2))
        train_sft(policy, data_of(examples), config, seed=seed, on_step=lambda s: losses.append(s.loss))
        return losses, next(policy.model.parameters()).detach()

    losses, weights = run(0)
    again, same_weights = run(0)
    assert losses[-1] < 0.6 * losses[0]
    assert losses == again
    assert torch.equal(weights, same_weights)
    assert run(1)[0] != losses


def test_epochs_are_whole_passes(examples: list[SFTExample]) -> None:
    assert SFTConfig(epochs=2, batch_rows=8).num_steps(12) == 3
    assert SFTConfig(epochs=0.5, batch_rows=8).num_steps(12) == 1
    stream = SFTStream(data_of(examples).sources, seed=3)
    rows = [example.row for _ in range(3) for example in stream.next(8)]
    assert Counter(rows) == {example.row: 2 for example in examples}


def test_the_mixture_changes_in_the_decay_phase(tokenizer: Any, tmp_path: Path, small_model: Path) -> None:
    text = write_rows(tmp_path / "text.jsonl", [{"body": "some words " * n} for n in range(1, 30)])
    mixture = {
        "web": {"data": text, "text": "body", "weight": 3.0, "decay_weight": 0.0},
        "sums": {"data": {"task": "arithmetic", "num_rows": 30}, "weight": 1.0, "decay_weight": 1.0},
    }
    optimizer = {"schedule": "wsd", "decay_fraction": 0.25, "min_lr_fraction": 0.0, "learning_rate": 1.0e-3}
    sft = {"steps": 8, "mixture": mixture, "batch_rows": 40, "optimizer": optimizer}
    config = config_of(sft)
    data = read_sft(config, ChatTemplate(tokenizer))
    assert [source.name for source in data.sources] == ["web", "sums"]
    longest = data.sources[0].examples[-1]
    assert len(longest.input_ids) <= 128  # cut at what a row may hold, all of it trained but its first token
    assert list(longest.weights_T) == [0.0, *[1.0] * (len(longest.input_ids) - 1)]
    stream = SFTStream(data.sources, seed=0)
    sums = {tuple(example.input_ids) for example in data.sources[1].examples}
    before = sum(tuple(example.input_ids) in sums for _ in range(10) for example in stream.next(40))
    assert 60 <= before <= 140  # a quarter of 400
    assert all(tuple(example.input_ids) in sums for example in stream.next(40, is_decaying=True))
    steps: list[SFTStep] = []
    train_sft(small_policy(small_model), data, config.sft, seed=0, on_step=steps.append)
    assert [step.is_decaying for step in steps] == [False] * 6 + [True] * 2
    rates = [step.learning_rate for step in steps]
    assert rates == pytest.approx([1e-3] * 6 + [5e-4, 0.0])


def test_validation_loss_is_the_token_mean_over_rows_held_out(
    small_model: Path, examples: list[SFTExample]
) -> None:
    policy = small_policy(small_model, max_tokens=60)
    with torch.no_grad():
        expected = reference_loss(policy.model, examples).item()
    assert validation_loss(policy, examples) == pytest.approx(expected, abs=1e-5)


def test_early_stop_goes_back_to_the_best_weights(small_model: Path, examples: list[SFTExample]) -> None:
    policy = small_policy(small_model)
    seen: dict[int, torch.Tensor] = {}
    losses = {2: 3.0, 4: 2.0, 6: 2.5, 8: 2.1, 10: 1.0}

    def measure(step: int) -> float:
        seen[step] = next(policy.model.parameters()).detach().clone()
        return losses[step]

    validation = {"fraction": 0.1, "every_steps": 2, "patience": 2}
    config = SFTConfig.model_validate({"steps": 20, "batch_rows": 4, "validation": validation})
    done = train_sft(policy, data_of(examples), config, seed=0, measure=measure)
    assert done == 4
    assert list(seen) == [2, 4, 6, 8]
    assert torch.equal(next(policy.model.parameters()), seen[4])
    assert not torch.equal(seen[4], seen[8])


def test_lora_trains_adapters_and_leaves_a_plain_model(small_model: Path, examples: list[SFTExample]) -> None:
    model = AutoModelForCausalLM.from_pretrained(small_model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    adapted = add_adapters(model, LoraConfig(rank=4, alpha=8))
    policy = Policy(adapted, LearnerConfig(), pad_token_id=0)
    config = SFTConfig(steps=3, batch_rows=8, optimizer=OptimizerConfig(learning_rate=1e-2))
    train_sft(policy, data_of(examples), config, seed=0)
    loss = validation_loss(policy, examples)
    plain = adapted.merge_and_unload()  # type: ignore[operator]
    after = dict(plain.named_parameters())
    assert after.keys() == before.keys()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved
    assert all("_proj" in name for name in moved)
    with torch.no_grad():
        assert reference_loss(plain, examples).item() == pytest.approx(loss, abs=1e-4)


def test_a_run_measures_keeps_answers_and_holds_the_gate(tmp_path: Path) -> None:
    validation = {"fraction": 0.2, "every_steps": 2, "samples": 2, "max_new_tokens": 8}
    sft = {"steps": 3, "batch_rows": 4, "validation": validation, "lora": {"rank": 2}}
    rewards = {"format": {"use": "format", "options": {"pattern": "think_boxed"}}}
    run = train_only_sft(config_of(sft, rewards=rewards), run_dir=tmp_path / "run", debug_inline=True)
    rows = [json.loads(line) for line in (run.run_dir / "sft.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 2, 3, 3]
    assert rows[0]["sft/trained_tokens"] < rows[0]["sft/tokens"]
    last = rows[-1]
    assert last["sft/perplexity"] == pytest.approx(math.exp(last["sft/validation_loss"]))
    assert last["sft/answers/format"] == 0.0  # three steps teach no format
    records = list(read_records(run.run_dir / "sft_answers" / "step_000003.parquet"))
    assert len(records) == 2
    assert run.summary["metrics"]["sft/answers/format"] == {"after": 0.0}
    model = AutoModelForCausalLM.from_pretrained(run.run_dir / "model")
    assert not any("lora" in name for name, _ in model.named_parameters())
    gated = config_of({**sft, "validation": {**validation, "min_format": 0.5}}, rewards=rewards)
    with pytest.raises(TrainingError, match=r"format compliance \(format\) of 0.0%, below"):
        train_only_sft(gated, run_dir=tmp_path / "gated", debug_inline=True)


def test_sft_is_shown_as_json_lines_or_hardly_at_all(tmp_path: Path) -> None:
    said = {}
    for show in ("json", "quiet"):
        text = io.StringIO()
        config = config_of({"steps": 2, "batch_rows": 4})
        console = Console(file=text, width=80)
        train_only_sft(config, run_dir=tmp_path / show, debug_inline=True, console=console, show=show)  # type: ignore[arg-type]
        said[show] = text.getvalue()
    objects = [json.loads(line) for line in said["json"].splitlines()]
    assert [one["step"] for one in objects if one["kind"] == "sft_step"] == [1, 2]
    assert (objects[-1]["kind"], objects[-1]["name"]) == ("summary", "run")
    assert said["quiet"].startswith("SFT, the first row: ")
    assert "nats/token" not in said["quiet"]


@pytest.mark.parametrize(
    ("sft", "message"),
    [
        ({"epochs": 1.0}, "steps=1 and epochs=1.0: set one"),
        ({"messages": "m", "text": "t"}, "one or the other"),
        ({"validation": {}}, "exactly one of 'data' and a 'fraction'"),
        ({"validation": {"fraction": 0.1, "min_format": 0.5}}, "needs a reward that measures it"),
        ({"loss": {"spans": [{"pattern": "(", "weight": 1}]}}, "not a regular expression"),
        (
            {"mixture": {"a": {"data": {"task": "arithmetic"}, "decay_weight": 2}}},
            "decay_weight needs the decay phase of schedule: wsd",
        ),
        ({"mixture": {"a": {"data": {"task": "arithmetic"}, "weight": 0}}}, "are all 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(sft: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(sft)


def test_answers_that_cannot_be_trained_on(tokenizer: Any, tmp_path: Path) -> None:
    row = {"id": "7", "question": "a", "answer": None}
    data = write_rows(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError, match="row 7: expected text in column 'answer', got None"):
        read_sft(config_of({}, data), ChatTemplate(tokenizer))
    rows = [{"id": "7", "question": "a", "answer": "0123456789"}, {"id": "8", "question": "a", "answer": "0"}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match="row 7: prompt and answer have 15 tokens, more than 12"):
        read_sft(config_of({"max_tokens": 12}, data), ChatTemplate(tokenizer))
    kept = read_sft(config_of({"max_tokens": 12}, {**data, "overlong": "drop"}), ChatTemplate(tokenizer))
    assert [example.row for example in kept.sources[0].examples] == ["8"]
    assert any("1 rows are too long and left out" in note for note in kept.notes)
