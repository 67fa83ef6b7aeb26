"""Masks against TRL's recorded ones, and every fault found before training with its decoded evidence."""

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.config import SFTConfig, SFTRowsConfig, TrainConfig
from verl_lite.engine.model import CHAT_TEMPLATE, ChatTemplate, build_tiny_tokenizer
from verl_lite.engine.sft import Conversation, ExampleBuilder, FaultKind, ResponseFinder, SFTExample, read_sft
from verl_lite.errors import DataError
from verl_lite.plugins import validate

TEMPLATES = Path(__file__).parents[3] / "fixtures" / "chat_templates"
SOUND = ("chatml", "llama3", "mistral", "gemma", "qwen3")
ENDS = {"llama3": "<|eot_id|>", "mistral": "</s>", "gemma": "<end_of_turn>"}


def load_tokenizer(template: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(TEMPLATES / "tokenizer.json"),
        bos_token="<s>",
        eos_token=ENDS.get(template, "<|im_end|>"),
        pad_token="<|pad|>",
    )
    tokenizer.chat_template = (TEMPLATES / f"{template}.jinja").read_text()
    return tokenizer


def recorded(*templates: str) -> Iterator[dict[str, Any]]:
    for line in (TEMPLATES / "trl_masks.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["template"] in templates:
            yield row


def builder_of(tokenizer: Any, **options: Any) -> ExampleBuilder:
    return ExampleBuilder(
        ResponseFinder(ChatTemplate(tokenizer)), SFTConfig(steps=1, **options), max_tokens=4096
    )


def build(builder: ExampleBuilder, messages: list[dict[str, Any]], **rows: Any) -> list[SFTExample]:
    return builder.from_chat(Conversation(id="7", messages=messages), SFTRowsConfig(**rows))  # type: ignore[arg-type]


def mask_of(example: SFTExample) -> list[int]:
    return [int(weight > 0) for weight in example.weights_T]


def trl_mask(row: dict[str, Any]) -> list[int]:
    """The recorded runs, the first of them not trained."""
    return [bit for length, bit in zip(row["runs"], cycle((0, 1)), strict=False) for _ in range(length)]


@pytest.mark.parametrize("mask", ["checked", "prompt", "template"])
def test_masks_and_tokens_equal_trl_s_on_200_conversations_over_five_templates(mask: str) -> None:
    """`prompt` never looks at the {% generation %} marks, which are all that TRL looks at."""
    count = 0
    for template in SOUND:
        builder = builder_of(load_tokenizer(template), mask=mask)
        for row in recorded(template):
            (example,) = build(builder, row["messages"])
            digest = hashlib.sha256(json.dumps(list(example.input_ids)).encode()).hexdigest()[:16]
            assert digest == row["ids_sha256"]
            assert mask_of(example) == trl_mask(row)
            count += 1
        assert builder.faults == []
    assert count == 200


@pytest.mark.parametrize(
    ("template", "kind", "shown"),
    [
        ("broken_end_lost", FaultKind.RESPONSE_LOST, ">>> '<|im_end|>' <<<"),
        ("broken_header_trained", FaultKind.PROMPT_TRAINED, ">>> '<|im_start|>assistant\\n' <<<"),
        ("broken_no_end", FaultKind.NO_END, "not with <|im_end|>"),
        ("broken_other_prompt", FaultKind.TEMPLATE_DIFFERS, "at inference"),
    ],
)
def test_templates_trl_trains_on_although_they_are_wrong_are_refused(
    template: str, kind: FaultKind, shown: str
) -> None:
    builder = builder_of(load_tokenizer(template))
    rows = list(recorded(template))
    for row in rows:
        build(builder, row["messages"])
        assert sum(trl_mask(row)) > 0  # TRL trains on it, with a warning at most
    found = [fault for fault in builder.faults if fault.kind == kind]
    assert len(found) >= len(rows) == 12
    assert {fault.kind for fault in builder.faults} == {kind}
    assert shown in found[0].evidence


def test_a_template_that_rewrites_earlier_turns_gives_one_example_a_turn() -> None:
    """TRL trains the earlier answers without the reasoning the model writes at inference."""
    tokenizer = load_tokenizer("rewriting")
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>x</think>b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "<think>y</think>d"},
    ]
    builder = builder_of(tokenizer)
    examples = build(builder, chat)
    assert builder.num_rewritten == 1
    assert builder.faults == []
    trained = [
        tokenizer.decode([i for i, w in zip(e.input_ids, mask_of(e), strict=True) if w]) for e in examples
    ]
    assert trained == ["<think>x</think>b<|im_end|>", "<think>y</think>d<|im_end|>"]
    assert "<think>x" not in tokenizer.decode(examples[1].input_ids)
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    assert "<think>x" not in whole  # the only rendering TRL sees


def test_only_the_last_turn_when_asked() -> None:
    tokenizer = load_tokenizer("chatml")
    chat = [{"role": role, "content": text} for role, text in
            (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))]  # fmt: skip
    builder = builder_of(tokenizer)
    (last,) = build(builder, chat, train_on="last")
    assert (
        tokenizer.decode([i for i, w in zip(last.input_ids, mask_of(last), strict=True) if w])
        == "d<|im_end|>"
    )
    assert builder.faults == []


def test_tools_and_tool_messages_are_never_trained_on() -> None:
    tokenizer = load_tokenizer("qwen3")
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    chat = Conversation(
        id="0",
        messages=[
            {"role": "user", "content": "1+1"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "two"},
        ],
        tools=[{"type": "function", "function": {"name": "add"}}],
    )
    builder = builder_of(tokenizer)
    (example,) = builder.from_chat(chat, SFTRowsConfig())
    text = tokenizer.decode(example.input_ids)
    trained = tokenizer.decode([i for i, w in zip(example.input_ids, mask_of(example), strict=True) if w])
    assert builder.faults == []
    assert "# Tools" in text
    assert trained == (
        '\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>two<|im_end|>'
    )


def test_prompt_and_response_that_share_a_token_are_refused() -> None:
    """Without a special token between them, BPE joins the prompt's last character and the answer's first."""
    tokenizer = load_tokenizer("chatml")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}"
        "{% if m.role == 'assistant' %}<|im_end|>{% else %} th{% endif %}{% endfor %}"
    )
    builder = builder_of(tokenizer)
    build(builder, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "e sum"}])
    assert [fault.kind for fault in builder.faults] == [FaultKind.TOKENS_DIFFER]
    assert "at inference it ends with" in builder.faults[0].evidence


@pytest.mark.parametrize(("padded", "side"), [("<|pad|><|pad|>What is 1+1?", "left"), ("no", "right")])
def test_padding_in_a_column_is_found_with_its_side(padded: str, side: str) -> None:
    answer = "2" if side == "left" else "a long answer then<|pad|><|pad|>"
    builder = builder_of(load_tokenizer("chatml"))
    build(builder, [{"role": "user", "content": padded}, {"role": "assistant", "content": answer}])
    (fault,) = builder.faults
    assert fault.kind == FaultKind.PADDING
    assert f"2 at its {side} side" in fault.evidence


def test_the_tokenizer_s_padding_side_changes_nothing() -> None:
    """Rows are packed; nothing is ever padded by the tokenizer."""
    masks = []
    for side in ("left", "right"):
        tokenizer = load_tokenizer("llama3")
        tokenizer.padding_side = side
        row = next(recorded("llama3"))
        masks.append(build(builder_of(tokenizer), row["messages"]))
    assert masks[0] == masks[1]


def test_a_second_start_token_and_an_empty_answer_are_found() -> None:
    tokenizer = load_tokenizer("llama3")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{- bos_token }}", "{{- bos_token + bos_token }}"
    )
    builder = builder_of(tokenizer)
    build(builder, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    build(builder, [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}])
    kinds = [fault.kind for fault in builder.faults]
    assert kinds == [FaultKind.DOUBLE_START, FaultKind.EMPTY, FaultKind.DOUBLE_START]


MARKED_END = "{{ m['content'] }}{% generation %}<|im_end|>{% endgeneration %}"


@pytest.mark.parametrize(
    ("template", "options", "answer", "evidence"),
    [
        pytest.param("{{ m['content'] }}<|im_end|>", {}, " ", "turn 1 is ", id="empty"),
        pytest.param("<|a|>{{ m['content'] }}<|b|><|im_end|>", {}, "", "'<|a|><|b|><|im_end|>'", id="marked"),
        pytest.param(MARKED_END, {"mask": "template"}, "It is 4.", "only end .* 'It is 4.", id="marks"),
        pytest.param(
            "{{ m['content'] }}<|im_end|>",
            {"loss": {"spans": [{"pattern": "It.*4", "weight": 0}]}},
            "It is 4",
            "only end tokens .* 'It is 4",
            id="spans",
        ),
    ],
)
def test_an_answer_of_which_only_end_tokens_are_trained_is_a_fault(
    template: str, options: dict[str, Any], answer: str, evidence: str
) -> None:
    """Command-A's answers are between two markers of their own: an empty one is as empty between these."""
    tokenizer = load_tokenizer("chatml")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|a|>", "<|b|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}<|im_end|>{% else %}"
        f"{template}{{% endif %}}{{% endfor %}}"
    )
    chat = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": answer}]
    builder = builder_of(tokenizer, **options)
    build(builder, chat)
    (fault,) = builder.faults
    assert fault.kind is FaultKind.EMPTY
    assert re.search(evidence, fault.evidence)


def test_reading_the_data_refuses_faults_in_one_message_with_advice(tmp_path: Path) -> None:
    chats = tmp_path / "chats.jsonl"
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chats.write_text("".join(json.dumps({"messages": chat}) + "\n" for _ in range(3)))
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace(
        "<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}"
    )
    with pytest.raises(DataError) as caught:
        read_sft(config_of(chats, {"steps": 1, "messages": "messages"}), ChatTemplate(tokenizer))
    message = str(caught.value)
    assert "SFT would train on the wrong tokens" in message
    assert f"{FaultKind.TEMPLATE_DIFFERS} (3 rows)" in message
    assert "row 0: at inference '<|user|>a<|end|><|assistant|><think>', in training" in message
    assert "add_generation_prompt" in message


def config_of(path: Path, sft: dict[str, Any]) -> TrainConfig:
    data = {"steps": 0, "model": {"tiny": {}}, "data": {"train": {"path": str(path)}}, "sft": sft}
    data["rollout"] = {"max_prompt_tokens": 64, "max_new_tokens": 64}
    return validate(TrainConfig, data, source="test")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": "hello"}, "expected a list of messages"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no assistant turn"),
        ({"chat": []}, "no column 'messages'"),
    ],
)
def test_rows_that_are_no_chats(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=message):
        read_sft(config_of(path, {"steps": 1, "messages": "messages"}), ChatTemplate(build_tiny_tokenizer()))
