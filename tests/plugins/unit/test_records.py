"""Records hold everything a reward saw, in both formats, and say clearly what cannot be read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_lite.errors import DataError
from verl_lite.plugins import (
    ComponentScore,
    Message,
    Rollout,
    SamplerSettings,
    Score,
    ScoredRollout,
    StepScore,
)
from verl_lite.plugins.records import (
    BadRow,
    RecordWriter,
    infer_columns,
    join_record_files,
    read_records,
    spans_of,
)

ROLLOUT = Rollout(
    completion="a \u2264 b\x00 \\boxed{4}",
    prompt=(
        Message(role="system", content="Be brief."),
        {"role": "user", "content": None, "name": "x"},
        {"role": "user", "content": [{"type": "text", "text": "parts"}]},
        Message(role="assistant", tool_calls=[{"id": "1", "function": {"name": "add"}}]),
    ),
    reference="4",
    columns={"reference": "4", "level": 3, "tests": [{"input": "1"}], "none": None},
    id="p7-s1",
    group="p7",
    sample_index=1,
    finish_reason="stop",
    prompt_ids=[5, 6],
    completion_ids=[7, 8, 9],
    logprobs=[-0.1, -1.5, -0.3333333333333333],
    policy_version=4,
    token_versions=[4, 4, 5],
    sampling=SamplerSettings(temperature=0.7, top_p=0.9, top_k=5, max_new_tokens=64, seed=2**40),
)
SCORED = ScoredRollout(
    rollout=ROLLOUT,
    components={
        "correct": ComponentScore(
            score=Score(1.0, reason="equal", details={"tier": "number"}, steps=(StepScore(0, 3, 0.5),)),
            weight=1.0,
            contribution=1.0,
            latency_s=0.25,
        ),
        "judge": ComponentScore(score=Score(None), weight=0.5, contribution=None),
    },
    reward=1.0,
    token_rewards=[0.0, 0.5, 0.0],
)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_record_comes_back_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rollouts{suffix}"
    with RecordWriter(path) as writer:
        writer.write([SCORED, SCORED], step=12, advantages=[0.75, None])
    first, second = read_records(path)
    assert first.rollout == ROLLOUT
    assert (first.row, first.step, first.reward, first.advantage) == (1, 12, 1.0, 0.75)
    assert (second.row, second.advantage) == (2, None)
    correct, judge = first.components["correct"], first.components["judge"]
    assert (correct.value, correct.outcome, correct.reason, correct.weight) == (1.0, "ok", "equal", 1.0)
    assert (correct.details, correct.latency_s) == ({"tier": "number"}, 0.25)
    assert correct.steps == [{"start": 0, "end": 3, "value": 0.5, "unit": "char"}]
    assert (judge.value, judge.outcome, judge.contribution) == (None, "abstain", None)
    assert first.token_rewards == [0.0, 0.5, 0.0]


def test_parquet_records_load_with_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "rollouts.parquet"
    with RecordWriter(path) as writer:
        writer.write([SCORED], step=1)
    rows = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    assert rows[0]["completion"] == ROLLOUT.completion
    assert rows[0]["components"][0]["name"] == "correct"


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with RecordWriter(tmp_path / "rollouts.jsonl") as writer:
            writer.write_rollouts([ROLLOUT])
            raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_a_plain_row_needs_only_a_completion(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    rows = [
        {"prompt": "1+1?", "completion": "2", "reference": 2, "source": "made up"},
        {"prompt": "1+1?", "completion": "3"},
        {"completion": "no prompt"},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    first, second, third = (record.rollout for record in read_records(path))
    assert first.prompt == ({"role": "user", "content": "1+1?"},)
    assert first.reference == "2"
    assert first.columns == {"reference": 2, "source": "made up"}
    assert first.group == second.group != third.group
    assert third.id == third.group == "row-3"


def test_bad_lines_are_handed_over_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(
        b'{"completion": "fine"}\n{"completion": \n[1]\n'
        b'{"completion": 3, "x": 1}\n\n{"completion": "\\ud800!"}\n'
    )
    bad: list[BadRow] = []
    records = list(read_records(path, on_bad_row=bad.append))
    assert [record.rollout.completion for record in records] == ["fine", "\ufffd!"]
    assert [(row.row, row.reason) for row in bad] == [
        (2, "not valid JSON (Expecting value at character 15)"),
        (3, "expected an object with a 'completion', got list"),
        (4, "'completion' must be text, got int; this row has: completion, x"),
    ]
    with pytest.raises(DataError, match="row 2: not valid JSON"):
        list(read_records(path))


def test_records_of_version_1_have_no_token_versions(tmp_path: Path) -> None:
    path, old = tmp_path / "new.parquet", tmp_path / "old.parquet"
    with RecordWriter(path) as writer:
        writer.write([SCORED], step=12)
    table = pq.read_table(path).drop_columns(["token_versions"])
    pq.write_table(table.replace_schema_metadata({"verl_lite.schema_version": "1"}), old)
    (record,) = read_records(old)
    assert record.rollout == replace(ROLLOUT, token_versions=())


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    whole = tmp_path / "whole.parquet"
    with RecordWriter(whole) as writer:
        writer.write([SCORED])
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-20])
    newer = tmp_path / "newer.parquet"
    table = pa.table({"completion": ["x"]}).replace_schema_metadata({"verl_lite.schema_version": "99"})
    pq.write_table(table, newer)
    (tmp_path / "rollouts.csv").touch()
    for name, message in [
        ("empty.jsonl", "holds no rollouts"),
        ("cut.parquet", "cannot be read as Parquet"),
        ("newer.parquet", "record schema 99"),
        ("rollouts.csv", "suffix '.csv'"),
        ("absent.parquet", "no file at"),
    ]:
        with pytest.raises(DataError, match=message):
            list(read_records(tmp_path / name))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_spans_hold_every_row_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rollouts{suffix}"
    with RecordWriter(path) as writer:
        for i in range(10):
            writer.write_rollouts([Rollout(completion=str(i), group="a")])
    spans = spans_of(path, num_rows=3, num_bytes=path.stat().st_size // 3)
    assert len(spans) in (3, 4)
    assert [r.rollout.completion for span in spans for r in read_records(path, span=span)] == [
        str(i) for i in range(10)
    ]


@pytest.mark.parametrize(
    ("given", "references"),
    [
        ("4", ("4",)),
        (4, ("4",)),
        (None, ()),
        ([], ()),
        (["4", "four"], ("4", "four")),
        ([4, None, 0.5, ["a", 1]], ("4", "0.5", '["a", 1]')),
        ("[1, 2]", ("[1, 2]",)),  # a text is one reference, whatever it looks like
    ],
)
def test_every_element_of_a_list_is_an_accepted_reference(
    tmp_path: Path, given: Any, references: tuple[str, ...]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"completion": "x", "reference": given}) + "\n")
    [record] = read_records(path)
    assert record.rollout.references == references
    for name in ("out.parquet", "out.jsonl"):  # and stays so in our own records
        with RecordWriter(tmp_path / name) as writer:
            writer.write([ScoredRollout(rollout=record.rollout, components={}, reward=None)])
        [again] = read_records(tmp_path / name)
        assert again.rollout.references == references


COLUMNS: list[dict[str, Any]] = [
    {
        "level": 1, "source": "x", "share": 1.5, "good": True, "tags": ["u", "v"],
        "tests": [{"input": "1", "output": "2"}], "mixed": 1, "nothing": None, "empty": [],
        "reward": 7, "reference": "4",
    },
    {"level": 2, "source": "y", "share": 0.5, "good": False, "tags": ["w"], "mixed": "t", "reference": "5"},
    {"level": "odd", "tests": [{"input": "1"}], "big": 2**70, "reference": {"x": 1}},
    {},
]  # fmt: skip


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_columns_are_columns_of_the_file_and_none_is_lost(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rollouts{suffix}"
    references = ["4", "5", '{"x": 1}', None]
    rollouts = [
        Rollout(completion=str(i), columns=columns, reference=reference, id=str(i), group="g")
        for i, (columns, reference) in enumerate(zip(COLUMNS, references, strict=True))
    ]
    with RecordWriter(path) as writer:
        writer.write_rollouts(rollouts[:2])
        writer.write_rollouts(rollouts[2:])
    read = [record.rollout for record in read_records(path)]
    assert [dict(r.columns) for r in read] == COLUMNS
    assert [r.reference for r in read] == references
    if suffix == ".parquet":
        table = pq.read_table(path).to_pylist()
        assert [row["level"] for row in table] == [1, 2, None, None]
        assert [row["tags"] for row in table] == [["u", "v"], ["w"], None, None]
        assert "mixed" not in table[0]  # values of two types stay JSON
        assert table[3]["columns_json"] is None
    else:
        assert json.loads(path.read_text().splitlines()[1])["tags"] == ["w"]


def test_parts_written_with_the_same_columns_join(tmp_path: Path) -> None:
    columns = infer_columns(COLUMNS[:2])
    parts = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for part, values in zip(parts, ({"level": 1}, {"level": "x"}), strict=True):
        with RecordWriter(part, columns=columns) as writer:
            writer.write_rollouts([Rollout(completion="c", columns=values)])
    join_record_files(parts, tmp_path / "all.parquet")
    read = [dict(record.rollout.columns) for record in read_records(tmp_path / "all.parquet")]
    assert read == [{"level": 1}, {"level": "x"}]


def within_itself() -> dict[str, Any]:
    found: dict[str, Any] = {"a": [1]}
    found["a"].append(found)
    return found


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize(
    ("details", "read"),
    [
        ({np.int64(3): np.float32(0.5), (1, 2): {1}}, {"3": 0.5, "(1, 2)": [1]}),
        (within_itself(), {"a": [1, "..."]}),
        ({"path": Path("x"), b"k": b"v"}, {"path": "x", "b'k'": "b'v'"}),
        ({"said": "\ud800 \u00e9", "\ud801": 1}, {"said": "\ufffd \u00e9", "\ufffd": 1}),
    ],
)
def test_whatever_a_reward_gives_as_details_can_be_written(
    tmp_path: Path, suffix: str, details: dict[Any, Any], read: dict[str, Any]
) -> None:
    score = Score(1.0, reason="because \ud800", details=details)
    part = ComponentScore(score=score, weight=1.0, contribution=1.0)
    with RecordWriter(tmp_path / f"rollouts{suffix}") as writer:
        writer.write([replace(SCORED, components={"odd": part})])
    (record,) = read_records(tmp_path / f"rollouts{suffix}")
    assert record.components["odd"].details == read
    assert record.components["odd"].reason == "because \ufffd"


def test_details_too_deep_for_json_are_cut(tmp_path: Path) -> None:
    part = ComponentScore(score=Score(1.0, details={"tree": nested(100_000)}), weight=1.0, contribution=1.0)
    with RecordWriter(tmp_path / "rollouts.jsonl") as writer:
        writer.write([replace(SCORED, components={"deep": part})])
    (record,) = read_records(tmp_path / "rollouts.jsonl")
    assert str(record.components["deep"].details).count("[") == 99
