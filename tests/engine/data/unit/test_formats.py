"""Rows in the shapes of verl, TRL, OpenAI and ShareGPT; references as data sets have them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_lite.engine import PromptRow
from verl_lite.engine.config import DatasetConfig
from verl_lite.engine.data import RowStore, read_prompts
from verl_lite.engine.model import ChatTemplate
from verl_lite.errors import DataError

VERL = {
    "data_source": "openai/gsm8k",
    "prompt": [{"role": "user", "content": "1+1?"}],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "extra_info": {"split": "train", "index": 0, "answer": "1+1=2\n#### 2"},
}
CHAT = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
SHAREGPT = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]
ASKED = "<|user|>1+1?<|end|><|assistant|>"


def read(tmp_path: Path, tokenizer: Any, rows: Sequence[Any], **options: Any) -> RowStore[PromptRow]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DatasetConfig(path=str(path), **options)
    return read_prompts(config, ChatTemplate(tokenizer), max_prompt_tokens=100, seed=0)


@pytest.mark.parametrize(
    ("row", "format", "reference"),
    [
        (VERL, "verl", "2"),
        ({**VERL, "reward_model": json.dumps(VERL["reward_model"])}, "verl", "2"),
        ({"prompt": "1+1?", "solution": "2"}, "trl", "2"),
        ({"prompt": CHAT[:1], "solution": "2"}, "trl", "2"),
        ({"messages": CHAT}, "openai", None),
        ({"conversations": SHAREGPT}, "sharegpt", None),
    ],
)  # fmt: skip
def test_formats(row: Any, format: str, reference: str | None, tmp_path: Path, tokenizer: Any) -> None:
    (prompt,) = read(tmp_path, tokenizer, [row], format=format)
    assert tokenizer.decode(prompt.prompt_ids) == ASKED
    assert prompt.reference == reference
    assert {key: prompt.columns[key] for key in row} == row


BOXED = r"so $x=\boxed{\frac{3}{2}}$."
TESTS = {"inputs": ["1\n"], "outputs": ["2\n"]}
VERIFICATION = {"verification_info": json.dumps({"ground_truth": "2"}), "prompt": "1+1?"}
ASKED_CHAT = CHAT[:1]
PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {  # row, settings, reference
    "gsm8k": (
        {"question": "1+1?", "answer": "1+1=2\n#### 2"},
        {"reference": "answer", "reference_after": "####"},
        "2",
    ),
    "math": (
        {"problem": "1+1?", "level": "Level 2", "type": "Algebra", "solution": BOXED},
        {"prompt": "problem", "reference": "solution"},
        BOXED,
    ),
    "numina-cot": (
        {"source": "cn_k12", "problem": "1+1?", "solution": BOXED, "messages": CHAT},
        {"prompt": "problem", "reference": "solution"},
        BOXED,
    ),
    "numina-1.5": (
        {"problem": "1+1?", "answer": "2", "problem_is_valid": "Yes", "synthetic": False},
        {"prompt": "problem", "reference": "answer"},
        "2",
    ),
    "open-r1-220k": (
        {"problem": "1+1?", "answer": "2", "generations": ["<think>\na\n</think>\n2"], "messages": CHAT},
        {"prompt": "problem", "reference": "answer"},
        "2",
    ),
    "bigmath": (
        {"problem": "1+1?", "answer": "2", "domain": ["Algebra"], "llama8b_solve_rate": 0.5},
        {"prompt": "problem", "reference": "answer"},
        "2",
    ),
    "deepscaler": (
        {"problem": "1+1?", "answer": "2", "solution": ""},
        {"prompt": "problem", "reference": "answer"},
        "2",
    ),
    "dapo-17k": (
        {**VERL, "data_source": "math_dapo", "extra_info": {"index": "9a9b"}},
        {"format": "verl"},
        "2",
    ),
    "skywork-or1": (
        {**VERL, "reward_model": {"ground_truth": '["2"]', "style": "rule"}},
        {"format": "verl", "reference": "reward_model.ground_truth.0"},
        "2",
    ),
    "eurus-2-code": (
        {**VERL, "ability": "code", "reward_model": {"ground_truth": json.dumps(TESTS), "style": "rule"}},
        {"format": "verl"},
        json.dumps(TESTS),
    ),
    "synthetic-1": (
        {**VERIFICATION, "task_type": "verifiable_math", "problem_id": "a"},
        {"prompt": "prompt", "reference": "verification_info.ground_truth"},
        "2",
    ),
    "synthetic-1-python-text": (
        {**VERIFICATION, "verification_info": str({"ground_truth": "2"})},
        {"prompt": "prompt", "reference": "verification_info.ground_truth"},
        "2",
    ),
    "kodcode": (
        {"question": "1+1?", "test": "from solution import inc\n", "test_info": [{"function_name": "inc"}]},
        {"reference": ""},
        None,
    ),
    "nemotron-post-training": (
        {"input": ASKED_CHAT, "output": "2", "category": "math", "used_in_training": "Ultra"},
        {"prompt": "input", "reference": "output"},
        "2",
    ),
    "nemotron-metadata": (
        {"messages": json.dumps(CHAT), "metadata": json.dumps({"expected_answer": "2"})},
        {"format": "openai", "reference": "metadata.expected_answer"},
        "2",
    ),
    "tulu-3-rlvr": (
        {"messages": ASKED_CHAT, "ground_truth": "2", "dataset": "gsm8k"},
        {"format": "openai", "reference": "ground_truth"},
        "2",
    ),
    "openrlhf": ({"input": "1+1?", "label": 2}, {"prompt": "input", "reference": "label"}, "2"),
    "openrlhf-chat": (
        {"context_messages": ASKED_CHAT, "dataset": "d"},
        {"prompt": "context_messages", "reference": ""},
        None,
    ),
    "prime-rl": (
        {"prompt": ASKED_CHAT, "answer": "2", "info": {"a": 1}, "task": "math", "example_id": 0},
        {"prompt": "prompt", "reference": "answer"},
        "2",
    ),
    "hh-rlhf": ({"text": "\n\nHuman: 1+1?\n\nAssistant: "}, {"prompt": "text", "reference": ""}, None),
}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_schemas_are_read_by_naming_columns(
    name: str, suffix: str, tmp_path: Path, tokenizer: Any
) -> None:
    row, options, reference = PUBLISHED[name]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row) + "\n")
    config = DatasetConfig(path=str(path), **options)
    (prompt,) = read_prompts(config, ChatTemplate(tokenizer), max_prompt_tokens=100, seed=0)
    assert tokenizer.decode(prompt.prompt_ids) == ASKED
    assert prompt.reference == reference


@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_a_row_s_system_message_is_shown_unless_it_is_ignored(
    column: str, tmp_path: Path, tokenizer: Any
) -> None:
    row = {column: "Be brief.", "question": "1+1?", "reference": "2"}
    (prompt,) = read(tmp_path, tokenizer, [row], system_prompt="Other.")
    assert tokenizer.decode(prompt.prompt_ids) == f"<|system|>Be brief.<|end|>{ASKED}"
    (prompt,) = read(tmp_path, tokenizer, [row], ignore=(column,))
    assert tokenizer.decode(prompt.prompt_ids) == ASKED


def test_columns_of_a_format_can_be_named_otherwise(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"messages": CHAT, "info": {"gold": {"answer": 2}}, "system": "s"}]
    (prompt,) = read(tmp_path, tokenizer, rows, format="openai", reference="info.gold.answer")
    assert prompt.reference == "2"
    sharegpt = [{"conversations": [{"from": "human", "value": "1+1?"}], "system": "s"}]
    (prompt,) = read(tmp_path, tokenizer, sharegpt, format="sharegpt")
    assert tokenizer.decode(prompt.prompt_ids) == f"<|system|>s<|end|>{ASKED}"
    with pytest.raises(DataError, match=r"no column 'info\.gold\.anser'; it has messages, info, system"):
        read(tmp_path, tokenizer, rows, format="openai", reference="info.gold.anser")


def test_a_prompt_that_ends_with_the_answer_is_refused_without_a_format(
    tmp_path: Path, tokenizer: Any
) -> None:
    with pytest.raises(DataError, match=r"row 0: the prompt ends with an assistant turn.*format: openai"):
        read(tmp_path, tokenizer, [{"question": CHAT}], reference="")


@pytest.mark.parametrize(
    ("value", "expected", "column"),
    [
        ("7", "7", "7"),
        (" 7\n", "7", "7"),
        (7, "7", "7"),
        (7.0, "7", "7"),
        (0.5, "0.5", "0.5"),
        (0, "0", "0"),
        (False, "False", "False"),
        (["7", 7.5, None, ""], '["7", "7.5"]', ["7", "7.5"]),
        (["7"], "7", "7"),
        ({"a": 1}, '{"a": 1}', '{"a": 1}'),
        (None, None, None),
        ("", None, None),
        ("  ", None, None),
        ([], None, None),
        (math.nan, None, None),
    ],
)
def test_references(value: Any, expected: Any, column: Any, tmp_path: Path, tokenizer: Any) -> None:
    prompts = read(tmp_path, tokenizer, [{"question": "?", "reference": value}])
    assert prompts[0].reference == expected
    assert prompts[0].columns.get("reference") == column
    assert bool(prompts.notes) == (expected is None)
    if prompts.notes:
        assert "1 of 1 rows of" in prompts.notes[0]
        assert "have no reference: rewards that need one abstain" in prompts.notes[0]


def test_a_column_that_only_some_rows_have(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"question": "?", "reference": "1"}, {"question": "??"}]
    prompts = read(tmp_path, tokenizer, rows)
    assert [prompt.reference for prompt in prompts] == ["1", None]
    assert "1 of 2 rows" in prompts.notes[0]


def test_prompts_that_are_too_long_are_counted(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"question": "?" * (120 if at % 3 == 1 else 5), "reference": "1"} for at in range(7)]
    message = (
        r"row 1: the prompt has 123 tokens, more than rollout.max_prompt_tokens=100, and so have 2 of 7 rows"
    )
    with pytest.raises(DataError, match=message):
        read(tmp_path, tokenizer, rows)
    prompts = read(tmp_path, tokenizer, rows, overlong="drop")
    assert [prompt.id for prompt in prompts] == ["0", "2", "3", "5", "6"]
    assert "2 of 7 rows of" in prompts.notes[0]
    assert "more than 100 tokens and are left out" in prompts.notes[0]


def test_mixed_types_in_a_column(tmp_path: Path, tokenizer: Any) -> None:
    rows: list[dict[str, Any]] = [{"question": "1+1?"}, {"question": CHAT[:1]}]
    for prompt in read(tmp_path, tokenizer, rows, reference=""):
        assert tokenizer.decode(prompt.prompt_ids) == ASKED
    with pytest.raises(DataError, match=r"row 2, column 'question': expected text or .*, got 5"):
        read(tmp_path, tokenizer, [*rows, {"question": 5}], reference="")


def test_a_store_is_on_disk_beyond_its_limit_and_reads_any_row(tmp_path: Path) -> None:
    rows = [{"n": at, "text": "x" * at} for at in range(300)]
    store = RowStore(iter(rows), in_memory_bytes=1000)
    assert store._file._rolled
    assert (len(store), store[-1], store[7:9]) == (300, rows[-1], rows[7:9])
    assert store == rows
    assert list(store) == rows
    with pytest.raises(IndexError):
        store[300]


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"q": "x"}, {"prompt_template": "{q} {"}, r"row 0: prompt_template does not fit: Single '{'"),
        (
            {"q": ["x"]},
            {"prompt_template": "{q[1]}"},
            "row 0: prompt_template does not fit: list index out of range",
        ),
        (  # the template fits: what it makes has its own message
            {"q": '[{"role": "user", "content": [{"type": "image_url"}]}]'},
            {"prompt_template": "{q}"},
            r"^\S*rows\.jsonl, row 0, message 0: its content has a part of type 'image_url'",
        ),
        ({"q": "\ud83d"}, {"prompt": "q"}, "row 0: the text has half of a surrogate pair"),
    ],
)
def test_text_that_cannot_be_made_is_one_line(
    row: Any, options: Any, message: str, tmp_path: Path, tokenizer: Any
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, tokenizer, [row], reference="", **options)
