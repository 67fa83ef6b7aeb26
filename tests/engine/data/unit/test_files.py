"""Rows from files as people have them: the same rows whatever the container, and one message for bad ones."""

import bz2
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from verl_lite.engine.config import DatasetConfig
from verl_lite.engine.data import iterate_rows, read_rows
from verl_lite.errors import ConfigError, DataError

NOTE = 'a, "b"\nc é'
ROWS = [
    {"question": f"{n}+1=", "reference": f"{n + 1:03d}", "note": NOTE if n % 2 else None} for n in range(7)
]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_arrow(rows: list[dict[str, Any]], *, stream: bool) -> bytes:
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return bytes(sink.getvalue())


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(content)
    return bytes(sink.getvalue())


def zipped(rows: list[dict[str, Any]]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.jsonl", lines(rows))
    return content.getvalue()


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "rows.jsonl": lines,
    "rows.ndjson": lambda rows: b"\xef\xbb\xbf" + lines(rows).replace(b"\n", b"\r\n\n"),
    "lines.json": lines,
    "array.json": lambda rows: json.dumps(rows).encode(),
    "pretty.json": lambda rows: json.dumps(rows, indent=2).encode(),
    "wrapped.json": lambda rows: json.dumps({"version": 1, "data": rows}).encode(),
    "pretty_wrapped.json": lambda rows: json.dumps({"data": rows}, indent=1).encode(),
    "rows.csv": as_csv,
    "semicolons.csv": lambda rows: as_csv(rows, ";"),
    "excel.csv": lambda rows: as_csv(rows, "\t").decode().encode("utf-16"),
    "utf16.csv": lambda rows: as_csv(rows).decode().encode("utf-16"),
    "rows.tsv": lambda rows: as_csv(rows, "\t"),
    "rows.jsonl.gz": lambda rows: gzip.compress(lines(rows)),
    "rows.jsonl.bz2": lambda rows: bz2.compress(lines(rows)),
    "rows.jsonl.zst": lambda rows: zstd(lines(rows)),
    "rows.json.gz": lambda rows: gzip.compress(json.dumps(rows).encode()),
    "rows.JSONL.GZ": lambda rows: gzip.compress(lines(rows[:3])) + gzip.compress(lines(rows[3:])),
    "rows.jsonl.zip": zipped,
    "rows.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "file.arrow": lambda rows: as_arrow(rows, stream=False),
    "stream.arrow": lambda rows: as_arrow(rows, stream=True),
}


def config(path: object, **options: Any) -> DatasetConfig:
    return DatasetConfig(path=path if isinstance(path, tuple) else str(path), **options)


@pytest.mark.parametrize("name", list(WRITERS))
def test_every_container_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(WRITERS[name](ROWS))
    assert read_rows(config(tmp_path / name), seed=0) == ROWS
    assert read_rows(config(tmp_path / name, num_rows=2), seed=0) == ROWS[:2]


def test_parquet_and_feather_too(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=3)
    pa.feather.write_feather(table, str(tmp_path / "rows.feather"))
    for name in ("rows.parquet", "rows.feather"):
        assert read_rows(config(tmp_path / name), seed=0) == ROWS


def test_an_answer_in_csv_that_looks_like_a_chat_stays_text(tmp_path: Path) -> None:
    legs, chat = '[{"from": "A", "to": "B"}]', [{"role": "user", "content": "1+1?"}]
    (tmp_path / "a.csv").write_bytes(as_csv([{"question": json.dumps(chat), "reference": legs}]))
    assert read_rows(config(tmp_path / "a.csv"), seed=0) == [{"question": chat, "reference": legs}]


@pytest.mark.parametrize("stream", [False, True])
def test_objects_without_keys_which_parquet_lacks(tmp_path: Path, stream: bool) -> None:
    """The schema of a tool without arguments, in a saved data set."""
    tools = [{"name": "now", "parameters": {"type": "object", "properties": {}}}]
    rows = [{"question": str(n), "reference": "1", "tools": tools} for n in range(7)]
    (tmp_path / "tools.arrow").write_bytes(as_arrow(rows, stream=stream))
    assert read_rows(config(tmp_path / "tools.arrow"), seed=0) == rows


def test_shards_globs_lists_and_folders(tmp_path: Path) -> None:
    for at in range(3):
        (tmp_path / f"part-{at}.jsonl").write_bytes(lines(ROWS[at::3]))
    expected = [row for at in range(3) for row in ROWS[at::3]]
    (tmp_path / "README.md").write_text("no rows")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".part-9.jsonl").write_text("{broken")
    every = tuple(str(tmp_path / f"part-{at}.jsonl") for at in range(3))
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.png").write_bytes(b"no rows")
    for path in (tmp_path, tmp_path / "*.jsonl", tmp_path / "[p_]*", tmp_path / "**/part-?.jsonl", every):
        assert read_rows(config(path), seed=0) == expected
    places = [where for where, _ in iterate_rows(config(tmp_path), seed=0)]
    assert places[3] == f"{tmp_path}/part-1.jsonl, row 0"


def test_a_folder_whose_files_name_splits_gives_one_of_them(tmp_path: Path) -> None:
    """The layout of a data set's repository: test rows must not be trained on."""
    (tmp_path / "data").mkdir()
    for at, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        pq.write_table(pa.Table.from_pylist(ROWS[2 * at : 2 * at + 2]), tmp_path / "data" / f"{name}.parquet")
    assert read_rows(config(tmp_path), seed=0) == ROWS[:4]
    assert read_rows(config(tmp_path, split="test"), seed=0) == ROWS[4:6]
    with pytest.raises(DataError, match="no file is of the split 'validation'; their names say test, train"):
        read_rows(config(tmp_path, split="validation"), seed=0)


@pytest.mark.parametrize("is_dict", [False, True])
def test_what_datasets_saved(tmp_path: Path, is_dict: bool) -> None:
    import datasets

    rows = datasets.Dataset.from_list(ROWS)
    saved = datasets.DatasetDict({"train": rows, "test": rows.select([0])}) if is_dict else rows
    saved.save_to_disk(str(tmp_path / "saved"), **({} if is_dict else {"num_shards": 3}))
    assert read_rows(config(tmp_path / "saved"), seed=0) == ROWS
    if is_dict:
        assert read_rows(config(tmp_path / "saved", split="test"), seed=0) == ROWS[:1]
        with pytest.raises(
            DataError, match="no file is of the split 'dev'; their names say test, train: set split"
        ):
            read_rows(config(tmp_path / "saved", split="dev"), seed=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl", b'{"question": "a", "reference": "b"}\n{"question": \n',
            r"a\.jsonl:2: not valid JSON \(Expecting value at character \d+\)",
        ),
        (
            "a.jsonl", b'\n{"question": "a", "reference": "b"}\n[1]\n',
            r"a\.jsonl, row 1: expected an object, got \[1\]",
        ),
        (
            "a.json", b'[\n{"question": "a"},\n{"question": }]',
            r"a\.json cannot be read .*: line 3 is not valid JSON",
        ),
        ("a.json", b'[1, "x"]', r"a\.json, row 0: expected an object, got 1"),
        ("a.csv", b'question,reference\na,b\nc,d,e\n', r"a\.csv, row 1: .* got \"more cells than the header"),
        ("a.csv", b'question,question\na,b\n', r"a\.csv: several columns are called 'question'"),
        (
            "a.csv", "question,reference\né,b\n".encode("latin-1"),
            r"a\.csv is not UTF-8 text .*: save it as UTF-8",
        ),
        (
            "a.jsonl", '{"question": "é"}\n'.encode("latin-1"),
            r"a\.jsonl:1: not UTF-8 text \(byte 0xe9 at 15\)",
        ),
        ("a.csv", b'question,reference\na,"b\n', r"a\.csv:\d is not valid CSV: unexpected end of data"),
        ("a.jsonl", b"\xff\xfe{", r"a\.jsonl is not UTF-8 text"),
        ("a.jsonl.gz", gzip.compress(lines(ROWS), mtime=0)[:30], r"a\.jsonl\.gz cannot be read"),
        ("a.arrow", b"ARROW1\0\0 and no more", r"a\.arrow cannot be read"),
        ("a.parquet", b"PAR1", r"a\.parquet cannot be read as Parquet"),
        ("a.jsonl", b"", r"a\.jsonl has no rows"),
        ("a.csv", b"question,reference\n", r"a\.csv has no rows"),
        ("a.json", b"", r"a\.json has no rows"),
        ("a.jsonl.gz", b"", r"a\.jsonl\.gz has no rows"),
        ("a.xlsx", b"PK\3\4", r"a\.xlsx cannot be read"),
        ("a.txt", b"hello", r"a\.txt: expected JSONL, JSON, Parquet, Arrow, CSV"),
        ("a.jsonl", b'{"qestion": "a"}\n', r"no column 'question'; .* \(did you mean 'qestion'\?\)"),
        ("a.jsonl", b'{"question": "a", "gold": 1}\n', r"no column 'reference'; .* set reference: ''"),
    ],
)  # fmt: skip
def test_bad_files_name_the_place(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_rows(config(tmp_path / name), seed=0)
    assert "\n" not in str(caught.value)


def test_no_file_at_all(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path / "*.jsonl", tmp_path):
        with pytest.raises(DataError, match=r"no file .*: expected a file \(\.arrow, .*, or a glob"):
            read_rows(config(path), seed=0)
    with pytest.raises(ConfigError, match="lower num_rows"):
        read_rows(DatasetConfig(task="arithmetic", num_rows=10**6), seed=0)


def test_images_of_saved_data_sets_are_never_decoded(tmp_path: Path) -> None:
    import datasets

    image = {"bytes": b"no image", "path": None}
    features = datasets.Features(
        {"question": datasets.Value("string"), "image": datasets.Image(decode=False)}
    )
    rows = datasets.Dataset.from_list([{"question": "what?", "image": image}], features=features)
    rows.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "saved"))
    kept = read_rows(config(tmp_path / "saved", reference="", ignore=("image",)), seed=0)
    assert kept == [{"question": "what?"}]
