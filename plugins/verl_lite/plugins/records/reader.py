"""Read rollouts from Parquet or JSONL: our own records of any version, or any file with a `completion`.

A plain file needs only what the rewards read: `completion`, usually `prompt` (text or messages) and
`reference`; every other key becomes a column of the rollout. Rows of one prompt form a group unless
`group` says otherwise. Other formats are read with a `convert` function.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_lite.errors import DataError
from verl_lite.plugins.records.rows import to_record
from verl_lite.plugins.records.schema import METADATA_KEY, SCHEMA_VERSION, Record

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Convert = Callable[[Any, int], Iterable[Record]]  # (row, row number) -> its records

_BATCH_ROWS = 2048
_DECODER = json.JSONDecoder()
_BAD_ROW = (ValueError, TypeError, LookupError, AttributeError, RecursionError)  # of odd rows


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """An unreadable row: its position from 1 (a JSONL line number), the reason, and its raw text."""

    row: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A range of a record file that splits no group: `num_rows` rows from `first_row` (counted from 1).

    It spans `position` to `end`: byte offsets in JSONL, row-group indices in Parquet.
    """

    position: int
    end: int
    first_row: int
    num_rows: int


def own_records(row: Any, number: int) -> Iterable[Record]:
    """The record in a row of our own files, or of any file with a text `completion`."""
    return (to_record(row, number),)


def read_records(
    path: str | Path,
    *,
    on_bad_row: Callable[[BadRow], None] | None = None,
    shard: Shard | None = None,
    convert: Convert = own_records,
) -> Iterator[Record]:
    """Stream the records of `path` (or of one shard of it) in file order.

    `convert` makes the records of a row; it raises ValueError, TypeError or KeyError for a bad one.

    An unreadable row is passed to `on_bad_row` and reading continues; without `on_bad_row` it raises
    DataError with its position. Raises DataError for a file that is missing, empty, truncated, neither
    Parquet nor JSONL, or written with a newer schema.
    """
    path = check_record_file(path)
    rows = _parquet_rows(path, shard) if path.suffix == ".parquet" else _json_rows(path, shard)
    empty = True
    for number, row in rows:
        empty = False
        try:
            records = tuple(convert(_parsed(row) if isinstance(row, str) else row, number))
        except _BAD_ROW as error:
            bad = BadRow(row=number, reason=_reason(error), text=row if isinstance(row, str) else repr(row))
            if on_bad_row is None:
                raise DataError(f"{path}, row {number}: {bad.reason}") from None
            on_bad_row(bad)
        else:
            yield from records
    if empty and shard is None:
        raise DataError(f"{path} holds no rollouts")


def check_record_file(path: str | Path) -> Path:
    """`path`, if it is a file with a readable suffix; raises DataError otherwise."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no rollout file at {path}")
    if path.suffix not in (".parquet", ".jsonl", ".ndjson", ".json"):
        raise DataError(f"{path}: expected a .parquet or .jsonl file, got the suffix {path.suffix!r}")
    return path


def shard_records(path: str | Path, *, rows_per_shard: int, convert: Convert = own_records) -> list[Shard]:
    """Cut a record file into shards of at least `rows_per_shard` rows, never inside a group."""
    path = check_record_file(path)
    if path.suffix == ".parquet":
        return list(_parquet_shards(path, rows_per_shard))
    return list(_json_shards(path, rows_per_shard, convert))


def first_row(path: str | Path) -> object:
    """The first row of a record file (text, if it is JSONL); None for an empty file."""
    path = check_record_file(path)
    rows = _parquet_rows(path, None) if path.suffix == ".parquet" else _json_rows(path, None)
    return next((row for _, row in rows), None)


def _parsed(text: str) -> Any:
    """The JSON value in text without white space around it; faster than json.loads on short rows."""
    value, end = _DECODER.raw_decode(text)
    return value if end == len(text) else json.loads(text)  # to raise the error about the rest


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg} at character {error.pos + 1})"
    return f"there is no key {error}" if isinstance(error, KeyError) else str(error)


def _json_rows(path: Path, shard: Shard | None) -> Iterator[tuple[int, object]]:
    first, last = (shard.first_row, shard.first_row + shard.num_rows) if shard else (1, 0)
    with path.open("rb") as file:
        file.seek(shard.position if shard else 0)
        for number, line in enumerate(file, start=first):
            if number == last:
                return
            text = line.decode("utf-8", errors="replace").strip("\ufeff \t\r\n")
            if text:
                yield number, text


@contextmanager
def _parquet_file(path: Path) -> "Iterator[pq.ParquetFile]":
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            version = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
            if version is not None and int(version) > SCHEMA_VERSION:
                raise DataError(
                    f"{path} was written with record schema {int(version)}, this verl-lite reads up to "
                    f"{SCHEMA_VERSION}: upgrade verl-lite"
                )
            yield file
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet (truncated or damaged?): {error}") from None


def _parquet_shards(path: Path, rows_per_shard: int) -> Iterator[Shard]:
    with _parquet_file(path) as file:
        begin, first, count = 0, 1, 0
        for index in range(file.num_row_groups):
            size = file.metadata.row_group(index).num_rows
            if count >= rows_per_shard and _group_of_row(file, index - 1, -1) != _group_of_row(
                file, index, 0
            ):
                yield Shard(position=begin, end=index, first_row=first, num_rows=count)
                begin, first, count = index, first + count, 0
            count += size
        if count:
            yield Shard(position=begin, end=file.num_row_groups, first_row=first, num_rows=count)


def _group_of_row(file: "pq.ParquetFile", row_group: int, row: int) -> object:
    """The values that identify a row's group; reads only their columns."""
    names = set(file.schema_arrow.names)
    wanted = ["step", "group"] if "group" in names else ["step", "prompt"]
    table = file.read_row_group(row_group, columns=[name for name in wanted if name in names])
    return [column[row].as_py() for column in table.columns] or object()


def _json_shards(path: Path, rows_per_shard: int, convert: Convert) -> Iterator[Shard]:
    with path.open("rb") as file:
        begin = offset = 0
        first, previous = 1, b""
        for number, line in enumerate(file, start=1):
            if number - first >= rows_per_shard and _group_of_line(
                previous, convert, place=-1
            ) != _group_of_line(line, convert, place=0):
                yield Shard(position=begin, end=offset, first_row=first, num_rows=number - first)
                begin, first = offset, number
            offset += len(line)
            previous = line
        if offset > begin:
            yield Shard(position=begin, end=offset, first_row=first, num_rows=number + 1 - first)


def _group_of_line(line: bytes, convert: Convert, *, place: int) -> object:
    """The group of the first (`place` 0) or the last (-1) record of a line."""
    try:
        record = tuple(convert(json.loads(line), 0))[place]
    except _BAD_ROW:
        return object()  # an unreadable line belongs to no group
    return record.step, record.rollout.group


def _parquet_rows(path: Path, shard: Shard | None) -> Iterator[tuple[int, object]]:
    number = shard.first_row if shard else 1
    with _parquet_file(path) as file:
        groups = range(shard.position, shard.end) if shard else range(file.num_row_groups)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups):
            names = batch.schema.names
            columns = [column.to_pylist() for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield number, dict(zip(names, values, strict=True))
                number += 1
