"""Whatever the container and whatever the order: the same groups, each whole."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as parquet
import pytest

from verl_lite.errors import ConfigError, DataError
from verl_lite.lab import open_rollouts
from verl_lite.lab.reading import Sources, group_records, records_of_rows, rollouts
from verl_lite.plugins.records import BadRow, Record

Rows = list[dict[str, Any]]
Groups = dict[str, list[tuple[str, int]]]


@pytest.fixture
def rows() -> Rows:
    """12 prompts with four samples each, with a nested column and a line break in the text."""
    return [
        {
            "id": f"r{g}-{s}",
            "group": f"g{g}",
            "prompt": f"{g}+1=\n?",
            "completion": f"{g + s}, she said",
            "reference": str(g + 1),
            "extra": {"level": g, "tags": ["a", "b"]},
        }
        for g in range(12)
        for s in range(4)
    ]


@pytest.fixture
def shuffled(rows: Rows) -> Rows:
    mixed = list(rows)
    random.Random(3).shuffle(mixed)
    return mixed


def jsonl(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, rows: Rows) -> Path:
    path.write_text(jsonl(rows))
    return path


def read(sources: Sources, **options: Any) -> list[list[Record]]:
    with open_rollouts(sources, **options) as opened:
        return list(opened.groups())


def groups(found: list[list[Record]]) -> Groups:
    """(id, sample index) by group; a group that comes twice would be seen here."""
    names = [group[0].rollout.group for group in found]
    assert len(set(names)) == len(names), "a group is torn"
    return {g[0].rollout.group: [(r.rollout.id, r.rollout.sample_index) for r in g] for g in found}


def members(found: list[list[Record]]) -> dict[str, set[str]]:
    return {name: {identity for identity, _ in group} for name, group in groups(found).items()}


@pytest.mark.parametrize("span_bytes", [1, 400, 1 << 20])
def test_a_shuffled_file_has_the_groups_of_the_ordered_one(
    rows: Rows, shuffled: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, span_bytes: int
) -> None:
    monkeypatch.setattr(rollouts, "SPAN_BYTES", span_bytes)
    monkeypatch.setattr(rollouts, "SPAN_ROWS", 8)
    ordered = read(write(tmp_path / "ordered.jsonl", rows))
    mixed = read(write(tmp_path / "mixed.jsonl", shuffled))
    assert members(ordered) == members(mixed)
    # groups by first appearance, and inside each the order of the file
    assert list(groups(mixed)) == list(dict.fromkeys(row["group"] for row in shuffled))
    for name, group in groups(mixed).items():
        assert group == [
            (identity, index)
            for index, identity in enumerate(row["id"] for row in shuffled if row["group"] == name)
        ]


def test_the_pieces_of_an_ordered_file_split_no_group_and_rewrite_nothing(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "SPAN_BYTES", 300)
    with open_rollouts(write(tmp_path / "ordered.jsonl", rows)) as opened:
        pieces = opened.pieces()
        assert len(pieces) > 4
        assert all(isinstance(piece, rollouts.FilePiece) for piece in pieces)
        found = [group for piece in pieces for group in piece.groups()]
    assert [len(group) for group in found] == [4] * 12
    assert [record.row for group in found for record in group] == list(range(1, 49))


def test_every_step_has_groups_of_its_own(rows: Rows, tmp_path: Path) -> None:
    mixed = [{**row, "step": step} for row in rows for step in (1, 2)]
    found = read(write(tmp_path / "mixed.jsonl", mixed))
    assert len(found) == 24
    assert all(len({record.step for record in group}) == 1 and len(group) == 4 for group in found)


def test_rows_without_a_group_are_gathered_by_prompt_and_without_either_stand_alone(tmp_path: Path) -> None:
    mixed = [{"prompt": prompt, "completion": str(i)} for i, prompt in enumerate("abcabcab")]
    found = read(write(tmp_path / "prompts.jsonl", mixed))
    assert [[r.rollout.completion for r in group] for group in found] == [
        ["0", "3", "6"],
        ["1", "4", "7"],
        ["2", "5"],
    ]
    bare = read(write(tmp_path / "bare.jsonl", [{"completion": "x"}] * 3))
    assert [len(group) for group in bare] == [1, 1, 1]


def test_given_sample_indices_stay_and_repeated_ones_are_numbered(tmp_path: Path) -> None:
    given = [{"group": "g", "completion": str(i), "sample_index": 7 - i} for i in range(3)]
    assert [r.rollout.sample_index for r in read(write(tmp_path / "a.jsonl", given))[0]] == [7, 6, 5]
    repeated = [{**row, "sample_index": 1} for row in given]
    assert [r.rollout.sample_index for r in read(write(tmp_path / "b.jsonl", repeated))[0]] == [0, 1, 2]


def test_bad_rows_of_a_torn_file_are_reported_once_and_lose_nothing(shuffled: Rows, tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    lines = jsonl(shuffled).splitlines()
    lines[5:5] = ["{oops", "", '{"prompt": "no completion"}', "[1]"]
    path.write_text("\n".join(lines))
    bad: list[BadRow] = []
    with open_rollouts(path) as opened:
        found = list(opened.groups(bad.append))
    assert sorted(row.row for row in bad) == [6, 8, 9]
    assert sum(map(len, found)) == 48
    assert {record.row for group in found for record in group} == set(range(1, 53)) - {6, 7, 8, 9}
    with pytest.raises(DataError, match=r"mixed\.jsonl, row \d"):
        read(path)


def test_one_row_may_hold_samples_of_several_groups(tmp_path: Path) -> None:
    lines = [
        {
            "training_step": step,
            "decoded_responses": ["a0", "b0", "a1", "b1"],
            "decoded_queries": ["a", "b", "a", "b"],
            "scores": [1.0, 0.0, 0.0, 1.0],
        }
        for step in (1, 2)
    ]
    found = read(write(tmp_path / "traces.jsonl", lines))
    assert [[r.rollout.completion for r in group] for group in found] == [["a0", "a1"], ["b0", "b1"]] * 2
    assert [[r.reward for r in group] for group in found] == [[1.0, 0.0], [0.0, 1.0]] * 2


def _arrow_file(path: Path, rows: Rows) -> None:
    table = pa.Table.from_pylist(rows)
    with pyarrow.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)


def _arrow_stream(path: Path, rows: Rows) -> None:
    table = pa.Table.from_pylist(rows)
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)


def _csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _zstd(path: Path, rows: Rows) -> None:
    with pa.output_stream(str(path), compression="zstd") as packed:
        packed.write(jsonl(rows).encode())


def _parquet_gz(path: Path, rows: Rows) -> None:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), buffer)
    path.write_bytes(gzip.compress(buffer.getvalue()))


def _table(rows: Rows) -> dict[str, Any]:
    return {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}


CONTAINERS: dict[str, Callable[[Path, Rows], object]] = {
    "a.jsonl": write,
    "a.ndjson": write,
    "unknown": write,
    "a.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "indented.json": lambda path, rows: path.write_text("\ufeff" + json.dumps(rows, indent=2), "utf-8"),
    "array.jsonl": lambda path, rows: path.write_text(json.dumps(rows)),
    "objects.json": lambda path, rows: path.write_text("\n".join(json.dumps(r, indent=1) for r in rows)),
    "utf16.jsonl": lambda path, rows: path.write_text(jsonl(rows), encoding="utf-16"),
    "crlf.jsonl": lambda path, rows: path.write_bytes(jsonl(rows).replace("\n", "\r\n").encode()),
    "old_mac.jsonl": lambda path, rows: path.write_bytes(jsonl(rows).replace("\n", "\r").encode()),
    "old_mac_utf16.jsonl": lambda path, rows: path.write_text(jsonl(rows), encoding="utf-16", newline="\r"),
    "side_by_side.json": lambda path, rows: path.write_text("".join(map(json.dumps, rows))),
    "split.json": lambda path, rows: path.write_text(
        json.dumps({**_table(rows), "index": [*range(len(rows))]})
    ),
    "wandb.table.json": lambda path, rows: path.write_text(json.dumps({**_table(rows), "nrows": len(rows)})),
    "index.json": lambda path, rows: path.write_text(json.dumps({str(i): r for i, r in enumerate(rows)})),
    "columns.json": lambda path, rows: path.write_text(
        json.dumps({key: {str(i): row[key] for i, row in enumerate(rows)} for key in rows[0]}, indent=1)
    ),
    "lists.json": lambda path, rows: path.write_text(
        json.dumps({key: [r[key] for r in rows] for key in rows[0]})
    ),
    "hub.json": lambda path, rows: path.write_text(
        json.dumps({"rows": [{"row_idx": i, "row": r, "truncated_cells": []} for i, r in enumerate(rows)]})
    ),
    "a.jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress(jsonl(rows).encode())),
    "a.json.xz": lambda path, rows: path.write_bytes(lzma.compress(json.dumps(rows).encode())),
    "a.jsonl.bz2": lambda path, rows: path.write_bytes(bz2.compress(jsonl(rows).encode())),
    "a.jsonl.zst": _zstd,
    "misnamed.jsonl": lambda path, rows: path.write_bytes(gzip.compress(jsonl(rows).encode())),
    "a.parquet": lambda path, rows: parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=7),
    "misnamed.csv": lambda path, rows: parquet.write_table(pa.Table.from_pylist(rows), path),
    "a.parquet.gz": _parquet_gz,
    "a.arrow": _arrow_file,
    "a.feather": _arrow_file,
    "stream.arrow": _arrow_stream,
    "a.csv": _csv,
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(name: str, rows: Rows, shuffled: Rows, tmp_path: Path) -> None:
    CONTAINERS[name](tmp_path / name, shuffled)
    found = read(tmp_path / name)
    assert members(found) == {f"g{g}": {f"r{g}-{s}" for s in range(4)} for g in range(12)}
    record = next(r for group in found for r in group if r.rollout.id == "r3-2")
    original = next(row for row in rows if row["id"] == "r3-2")
    assert record.rollout.completion == original["completion"]
    assert record.rollout.prompt_text == original["prompt"]
    assert record.rollout.reference == original["reference"]
    (mapped,) = (
        r.rollout.reference
        for group in read(tmp_path / name, renames={"reference": "extra.level"})
        for r in group
        if r.rollout.id == "r3-2"
    )
    assert mapped == "3"


def test_messages_in_csv_are_read_as_json_and_as_pandas_writes_them(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "What's 1+1?"}]
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [["", "prompt", "completion"], [0, json.dumps(messages), "2"], [1, str(messages), ""]]
        )
    (group,) = read(path)
    assert [dict(m) for m in group[0].rollout.prompt] == messages
    assert [r.rollout.completion for r in group] == ["2", ""]


def test_rows_of_csv_with_too_few_or_too_many_cells_are_bad_ones(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion\nq,a\nq\nq,b,c\nq,\n")
    bad: list[BadRow] = []
    with open_rollouts(tmp_path / "a.csv") as opened:
        (group,) = opened.groups(bad.append)
    assert [record.rollout.completion for record in group] == ["a", ""]
    assert [row.row for row in bad] == [2, 3]
    assert [row.text.partition(":")[0] for row in bad] == [
        '"fewer cells than the header names',
        '"more cells than the header names',
    ]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "empty.jsonl", "holds no rollouts"),
        (b"hello\n", "notes.txt", "expected JSONL, JSON, Parquet"),
        (b"PAR1oops", "cut.parquet", "truncated or damaged"),
        (gzip.compress(b'{"completion": "a"}\n')[:-12], "cut.jsonl.gz", "truncated or damaged"),
        (b'[{"completion": "a"}, {"compl', "cut.json", "truncated or damaged"),
        (b"PK\x03\x04rest", "some.zip", "truncated or damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a.parquet", "git lfs pull"),
        (b'{"completion": "a", "completion": "b"}\n', "twice.jsonl", "'completion' occurs twice"),
        (b'{"completion": "a", "extra": {"k": 1, "k": 2}}\n', "within.jsonl", "'k' occurs twice"),
        (b'[{"completion": "a", "id": 1, "id": 2}]', "twice.json", "'id' occurs twice"),
        (b'{"columns": ["completion", "completion"], "data": [["a", "b"]]}', "two.json", "several columns"),
    ],
)
def test_damaged_and_unknown_files_are_refused(
    content: bytes, name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_several_files_folders_and_globs(rows: Rows, tmp_path: Path) -> None:
    for step in (2, 10, 1):
        write(tmp_path / f"{step}.jsonl", [{**row, "step": step} for row in rows])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "config.json").write_text('{"lr": 1}')
    (tmp_path / "1.bad.jsonl").write_text('{"row": 1, "reason": "r", "text": "t"}\n')
    by_folder = read(tmp_path)
    assert [group[0].step for group in by_folder] == [1] * 12 + [2] * 12 + [10] * 12
    by_name = read([tmp_path / f"{step}.jsonl" for step in (1, 2, 10)])
    by_glob = read(str(tmp_path / "*[0-9].jsonl"))
    assert by_folder == by_name == by_glob
    assert read([tmp_path / "1.jsonl", tmp_path / "1.jsonl"]) == read(tmp_path / "1.jsonl")
    with open_rollouts(tmp_path) as opened:
        assert opened.skipped == (str(tmp_path / "config.json"),)
    for missing, message in [("no*.jsonl", "no file of rows fits"), ("absent.jsonl", "no file at")]:
        with pytest.raises(DataError, match=message):
            read(str(tmp_path / missing))


def test_a_group_may_be_spread_over_files(rows: Rows, tmp_path: Path) -> None:
    for rank in range(4):
        write(tmp_path / f"rank{rank}.jsonl", rows[rank::4])
    assert members(read(tmp_path)) == {f"g{g}": {f"r{g}-{s}" for s in range(4)} for g in range(12)}


def test_equal_group_names_with_other_prompts_are_other_groups(tmp_path: Path) -> None:
    for name, prompt in [("a", "p"), ("b", "q"), ("c", "q")]:
        write(
            tmp_path / f"{name}.jsonl",
            [{"group": 0, "prompt": prompt, "completion": f"{name}{i}"} for i in (0, 1)],
        )
    found = read([tmp_path / f"{name}.jsonl" for name in "abc"])
    assert [[r.rollout.completion for r in group] for group in found] == [
        ["a0", "a1"],
        ["b0", "b1", "c0", "c1"],
    ]
    names = [{r.rollout.group for r in group} for group in found]
    assert names[0] == {"0"}
    assert len(names[1]) == 1
    assert names[0] != names[1]
    ids = [r.rollout.id for group in found for r in group]
    assert len(set(ids)) == 6
    assert ids[0] == "a:row-1"


def test_a_folder_with_two_formats_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.jsonl", [{"input": "q", "output": "a", "score": 1.0, "step": 1}])
    write(tmp_path / "scored.jsonl", [{"prompt": "q", "completion": "a"}])
    with pytest.raises(DataError, match=r"several formats \(verl, verl-lite\)"):
        read(tmp_path)


def test_standard_input_and_pipes(
    rows: Rows, shuffled: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stdin:
        buffer = io.BytesIO(gzip.compress(jsonl(shuffled).encode()))

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stdin", Stdin())
    expected = members(read(write(tmp_path / "a.jsonl", rows)))
    assert members(read("-")) == expected
    monkeypatch.setattr(Stdin, "isatty", lambda self: True)
    with pytest.raises(ConfigError, match="standard input is a terminal"):
        read("-")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(jsonl(shuffled),))
    writer.start()
    assert members(read(pipe)) == expected
    writer.join()


def test_remote_files_through_fsspec(rows: Rows, shuffled: Rows, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/runs/demo/1.jsonl", jsonl(shuffled[:20]).encode())
    memory.pipe("/runs/demo/2.jsonl.gz", gzip.compress(jsonl(shuffled[20:]).encode()))
    memory.pipe("/runs/demo/readme.md", b"x")
    expected = members(read(write(tmp_path / "a.jsonl", rows)))
    for name in ("memory://runs/demo", "memory://runs/demo/*.jsonl*"):
        assert members(read(name)) == expected
    assert members(read(["memory://runs/demo/2.jsonl.gz", (tmp_path / "a.jsonl").as_uri()])) == expected
    with pytest.raises(DataError, match=r"memory://runs/absent\.jsonl cannot be fetched"):
        read("memory://runs/absent.jsonl")
    with pytest.raises(ConfigError, match=r"nosuch://x/y\.jsonl: Protocol not known"):
        read("nosuch://x/y.jsonl")


def test_without_fsspec_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(ConfigError, match=r"hf://datasets/x/y\.parquet: .* pip install fsspec"):
        read("hf://datasets/x/y.parquet")


def test_a_full_temporary_folder_is_explained(
    shuffled: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "mixed.jsonl", shuffled)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rollouts, "spill", full)
    with pytest.raises(DataError, match="full: free space there, or set TMPDIR"):
        read(path)


def test_rows_in_memory_are_read_like_files(rows: Rows, shuffled: Rows, tmp_path: Path) -> None:
    found = group_records(records_of_rows(shuffled, renames={"reference": "extra.level"}))
    assert members(found) == members(read(write(tmp_path / "a.jsonl", rows)))
    assert {r.rollout.reference for r in found[0]} == {str(shuffled[0]["extra"]["level"])}
    with pytest.raises(DataError, match="the rows, row 2: 'completion' must be text"):
        list(records_of_rows([{"completion": "a"}, {"completion": None}]))
