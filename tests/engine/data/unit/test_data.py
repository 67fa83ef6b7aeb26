"""From rows to prompts: formats, columns, templates, the order of prompts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_lite.engine import PromptRow
from verl_lite.engine.config import DatasetConfig, TrainSourceConfig
from verl_lite.engine.data import (
    MixedStream,
    PromptSource,
    PromptStream,
    read_prompts,
    read_rows,
    read_sources,
    row_messages,
)
from verl_lite.engine.model import ChatTemplate
from verl_lite.errors import ConfigError, DataError

GSM8K_ROWS = [
    {"question": "Ann has 3 apples and buys 4. How many?", "answer": "She has 3+4=<<3+4=7>>7.\n#### 7"},
    {"question": "A box costs $1,200. Two boxes?", "answer": "2*1,200 = 2,400\n#### 2,400"},
    {"question": "Half of 10?", "answer": "10/2=5\n#### 5"},
]


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def gsm8k(**changes: Any) -> DatasetConfig:
    return DatasetConfig(**{"reference": "answer", "reference_after": "####", **changes})


def test_a_list_of_references_stays_a_list(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"question": "Two?", "answer": ["so #### 2 ", "#### two", None]}]
    source = gsm8k(path=str(write_jsonl(tmp_path / "rows.jsonl", rows)))
    [prompt] = read_prompts(source, ChatTemplate(tokenizer), max_prompt_tokens=100, seed=0)
    assert prompt.columns["reference"] == ["2", "two"]
    assert prompt.reference == '["2", "two"]'


def test_jsonl_parquet_and_datasets_give_the_same_prompts(tmp_path: Path, tokenizer: Any) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    jsonl = write_jsonl(folder / "train.jsonl", GSM8K_ROWS)
    parquet = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(GSM8K_ROWS), parquet)
    sources = [gsm8k(path=str(jsonl)), gsm8k(path=str(parquet)), gsm8k(hub=str(folder))]
    first, *others = [
        read_prompts(s, ChatTemplate(tokenizer), max_prompt_tokens=100, seed=0) for s in sources
    ]
    assert [prompt.reference for prompt in first] == ["7", "2,400", "5"]
    assert first[0].columns["question"] == GSM8K_ROWS[0]["question"]
    assert first[0].columns["reference"] == "7"
    assert tokenizer.decode(first[2].prompt_ids) == "<|user|>Half of 10?<|end|><|assistant|>"
    assert others == [first, first]


def test_num_rows_takes_the_first_and_every_row_is_checked(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [*GSM8K_ROWS, {"query": "?", "answer": "#### 1"}])
    assert len(read_rows(gsm8k(path=str(path), num_rows=2), seed=0)) == 2
    with pytest.raises(DataError, match=r"rows\.jsonl, row 3: no column 'question'; it has query, answer"):
        read_rows(gsm8k(path=str(path)), seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{broken\n", r"rows\.jsonl:1: not valid JSON"),
        ("[1]\n", "row 0: expected an object, got 1"),
        ("", "no rows"),
    ],
)
def test_broken_files_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_rows(gsm8k(path=str(path)), seed=0)


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_text("not parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_rows(gsm8k(path=str(path)), seed=0)


def test_prompts_from_templates_messages_and_system_prompts() -> None:
    row = {"question": "1+1?", "hint": "count", "chat": [{"role": "system", "content": "own"}]}
    base: dict[str, Any] = {"path": "x.jsonl"}
    config = DatasetConfig(**base, prompt_template="{question} ({hint})", system_prompt="Be brief.")
    assert row_messages(row, config) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1? (count)"},
    ]
    assert row_messages(row, DatasetConfig(**base, prompt="chat", system_prompt="Be brief.")) == row["chat"]
    with pytest.raises(DataError, match="names 'missing'; the row has question, hint, chat"):
        row_messages(row, DatasetConfig(**base, prompt_template="{missing}"))
    with pytest.raises(DataError, match="expected text or a list of messages, got 5"):
        row_messages({"question": 5}, DatasetConfig(**base))


def test_overlong_prompts_are_an_error_or_left_out(tmp_path: Path, tokenizer: Any) -> None:
    path = str(write_jsonl(tmp_path / "rows.jsonl", GSM8K_ROWS))
    with pytest.raises(
        DataError, match=r"row 0: the prompt has 41 tokens, more than rollout\.max_prompt_tokens=20"
    ):
        read_prompts(gsm8k(path=path), ChatTemplate(tokenizer), max_prompt_tokens=20, seed=0)
    kept = read_prompts(
        gsm8k(path=path, overlong="drop"), ChatTemplate(tokenizer), max_prompt_tokens=20, seed=0
    )
    assert [prompt.id for prompt in kept] == ["2"]  # the row's own number, whatever was left out
    with pytest.raises(DataError, match="all 3 prompts are longer"):
        read_prompts(gsm8k(path=path, overlong="drop"), ChatTemplate(tokenizer), max_prompt_tokens=3, seed=0)


def test_a_prompt_that_loses_all_its_text_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    class Empty(ChatTemplate):
        def prompt_ids(self, *_: object, **__: object) -> list[int]:
            return []

    path = str(write_jsonl(tmp_path / "rows.jsonl", GSM8K_ROWS))
    with pytest.raises(DataError, match="row 0: the prompt has no tokens: the tokenizer or the"):
        read_prompts(gsm8k(path=path), Empty(tokenizer), max_prompt_tokens=20, seed=0)


def test_a_reference_without_its_mark_and_ids_given_twice(tmp_path: Path, tokenizer: Any) -> None:
    unmarked = write_jsonl(tmp_path / "a.jsonl", [{"question": "q", "answer": "7"}])
    with pytest.raises(DataError, match="the reference '7' lacks '####'"):
        read_prompts(gsm8k(path=str(unmarked)), ChatTemplate(tokenizer), max_prompt_tokens=50, seed=0)
    twice = write_jsonl(tmp_path / "b.jsonl", [{"id": "x", "question": "q", "answer": "#### 7"}] * 2)
    with pytest.raises(DataError, match="two rows have id='x'"):
        read_prompts(gsm8k(path=str(twice)), ChatTemplate(tokenizer), max_prompt_tokens=50, seed=0)


def rows_of(num_rows: int) -> list[PromptRow]:
    return [PromptRow(id=str(i), messages=[], prompt_ids=[i]) for i in range(num_rows)]


def test_the_stream_covers_epochs_without_repeating_a_prompt_in_a_batch() -> None:
    stream = PromptStream(rows_of(10), seed=1)
    batches = [[row.id for row in stream.take(4)] for _ in range(25)]  # ten epochs
    assert all(len(set(batch)) == 4 for batch in batches)
    flat = [id for batch in batches for id in batch]
    epochs = [flat[start : start + 10] for start in range(0, 100, 10)]
    assert all(sorted(epoch, key=int) == [str(i) for i in range(10)] for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [row.id for row in PromptStream(rows_of(10), seed=1).take(4)] == batches[0]
    assert [row.id for row in PromptStream(rows_of(10), seed=2).take(10)] != epochs[0]


def test_the_stream_goes_on_where_it_stopped() -> None:
    stream = PromptStream(rows_of(10), seed=1)
    for _ in range(4):
        stream.take(3)
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = PromptStream(rows_of(10), seed=1)
    resumed.load_state_dict(state)
    assert [resumed.take(7) for _ in range(5)] == [stream.take(7) for _ in range(5)]
    with pytest.raises(ConfigError, match="made with 10 training rows, the data now has 9"):
        PromptStream(rows_of(9), seed=1).load_state_dict(state)
    with pytest.raises(ConfigError, match="more than the 10 rows"):
        stream.take(11)


def mixed(counts: Sequence[int], weights: Sequence[float], *, seed: int = 1) -> MixedStream:
    rows, sources = [], []
    for at, (count, weight) in enumerate(zip(counts, weights, strict=True)):
        start = len(rows)
        rows += [PromptRow(id=f"{at}:{n}", messages=[], prompt_ids=[n]) for n in range(count)]
        sources.append(PromptSource(name=str(at), weight=weight, rows=range(start, len(rows))))
    return MixedStream(rows, sources, seed=seed)


def shares(batch: Sequence[PromptRow]) -> list[int]:
    return [sum(row.id.startswith(f"{at}:") for row in batch) for at in range(3)]


def test_several_data_sets_are_mixed_by_weight_in_every_batch() -> None:
    stream = mixed([40, 50, 60], [3, 2, 1])
    batches = [stream.take(6) for _ in range(20)]
    assert [shares(batch) for batch in batches] == [[3, 2, 1]] * 20
    uneven = mixed([40, 50, 60], [1, 1, 1])
    taken = [row for _ in range(9) for row in uneven.take(4)]
    assert shares(taken) == [12, 12, 12]
    assert all(len({row.id for row in batch}) == len(batch) for batch in batches)
    assert stream.epoch == 1  # 60 of the 40 rows of the first
    assert shares(mixed([2, 50, 60], [8, 1, 1]).take(6))[0] == 2  # as many as it has


def test_a_mixture_goes_on_where_it_stopped() -> None:
    stream = mixed([7, 5, 9], [0.5, 0.3, 0.2])
    for _ in range(5):
        stream.take(4)
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = mixed([7, 5, 9], [0.5, 0.3, 0.2])
    resumed.load_state_dict(state)
    assert [resumed.take(4) for _ in range(6)] == [stream.take(4) for _ in range(6)]
    found = stream.find(["2:3", "0:1"])
    assert [row.id for row in found] == ["0:1", "2:3"]
    busy = stream.take(6)
    assert not {row.id for row in stream.take(6, besides=busy)} & {row.id for row in busy}
    with pytest.raises(ConfigError, match="no row with id 9:9"):
        stream.find(["9:9"])
    with pytest.raises(ConfigError, match="other data sets"):
        mixed([7, 5], [1, 1]).load_state_dict(state)
    with pytest.raises(ConfigError, match="more than the 21 rows"):
        stream.take(22)


def test_rows_of_several_data_sets_have_their_name(tmp_path: Path, tokenizer: Any) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", [{"question": "1", "reference": "1"}] * 2)
    own = {"question": "2", "reference": "2", "data_source": "own"}
    second = write_jsonl(tmp_path / "b.jsonl", [{"question": "2", "reference": "2"}, own])
    configs = [
        TrainSourceConfig(name="a", path=str(first), weight=2.0),
        TrainSourceConfig(name="b", path=str(second)),
    ]
    prompts, sources = read_sources(
        configs, ChatTemplate(tokenizer), max_prompt_tokens=50, seed=0, source_column="data_source"
    )
    assert [row.id for row in prompts] == ["a:0", "a:1", "b:0", "b:1"]
    assert [row.columns["data_source"] for row in prompts] == ["a", "a", "b", "own"]
    assert sources == [
        PromptSource(name="a", weight=2.0, rows=range(2)),
        PromptSource(name="b", weight=1.0, rows=range(2, 4)),
    ]
