"""Read rows and records from the two kinds of file that are read in place: JSONL and Parquet.

A plain file needs only what the rewards read: `completion`, usually `prompt` (text or messages) and
`reference`; every other key becomes a column of the rollout. Rows of one prompt form a group unless
`group` says otherwise. Other formats are read with a `convert` function.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_lite.errors import DataError
from verl_lite.plugins.records.rows import to_record
from verl_lite.plugins.records.schema import METADATA_KEY, SCHEMA_VERSION, Record
from verl_lite.plugins.strict_json import without_doubles

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Convert = Callable[[Any, int], Iterable[Record]]  # (row, row number) -> its records
Row = tuple[int, object]  # its number and its content: text in JSONL (bytes if not UTF-8), else a dict

_BATCH_ROWS = 2048
_DECODER = json.JSONDecoder(object_pairs_hook=without_doubles)
BAD_ROW = (ValueError, TypeError, LookupError, AttributeError, RecursionError)  # of odd rows
JSONL_SUFFIXES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """An unreadable row: its position from 1 (a JSONL line number), the reason, and its raw text."""

    row: int
    reason: str
    text: str
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a file: byte offsets of whole lines in JSONL, row-group indices in Parquet.

    `first_row` is the number of its first row, counted from 1; `num_rows` is 0 where nobody has counted.
    """

    position: int
    end: int
    first_row: int = 1
    num_rows: int = 0


def own_records(row: object, number: int) -> Iterable[Record]:
    """The record in a row of our own files, or of any file with a text `completion`."""
    return (to_record(row, number),)


def read_records(
    path: str | Path,
    *,
    on_bad_row: Callable[[BadRow], None] | None = None,
    span: Span | None = None,
    convert: Convert = own_records,
    name: str = "",
) -> Iterator[Record]:
    """Stream the records of `path` (or of one span of it) in file order.

    `convert` makes the records of a row; it raises ValueError, TypeError or KeyError for a bad one.
    `name` is what messages call the file.

    An unreadable row is passed to `on_bad_row` and reading continues; without `on_bad_row` it raises
    DataError with its position. Raises DataError for a file that is missing, empty, truncated, neither
    Parquet nor JSONL, or written with a newer schema.
    """
    name = name or str(path)
    empty = True
    for number, row in read_rows(path, span):
        empty = False
        records = converted(row, number, convert, on_bad_row, name)
        if records:
            yield from records
    if empty and span is None:
        raise DataError(f"{name} holds no rollouts")


def converted(
    row: object, number: int, convert: Convert, on_bad_row: Callable[[BadRow], None] | None, name: str
) -> Iterable[Record]:
    """The records of one row; a bad one is passed to `on_bad_row`, or raises DataError without it."""
    try:
        return tuple(convert(parsed(row), number))
    except BAD_ROW as error:
        text = row if isinstance(row, str) else repr(row)
        bad = BadRow(row=number, reason=reason_of(error), text=text, file=name)
        if on_bad_row is None:
            raise DataError(f"{name}, row {number}: {bad.reason}") from None
        on_bad_row(bad)
        return ()


def read_rows(
    path: str | Path, span: Span | None = None, *, columns: Sequence[str] | None = None
) -> Iterator[Row]:
    """The rows of a file, or of one span, with their numbers from 1; empty lines are left out.

    `columns` leaves out the other columns of a Parquet file.
    """
    path = check_record_file(path)
    return _parquet_rows(path, span, columns) if path.suffix == ".parquet" else _json_rows(path, span)


def check_record_file(path: str | Path) -> Path:
    """`path`, if it is a file with a readable suffix; raises DataError otherwise."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file at {path}")
    if path.suffix not in (".parquet", *JSONL_SUFFIXES):
        raise DataError(f"{path}: expected a .parquet or .jsonl file, got the suffix {path.suffix!r}")
    return path


def spans_of(path: Path, *, num_rows: int, num_bytes: int) -> list[Span]:
    """Cut a file into spans of about `num_bytes` (JSONL) or at least `num_rows` (Parquet), uncounted."""
    if path.suffix == ".parquet":
        return list(_parquet_spans(path, num_rows))
    return list(_json_spans(path, num_bytes))


def lines_at(path: Path, span: Span) -> Iterator[tuple[int, str | bytes]]:
    """(byte offset, text) of every line of a JSONL span, empty ones included."""
    offset = span.position
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            yield offset, _text(line)
            offset += len(line)
            if offset >= span.end:
                return


def group_columns(path: Path, span: Span) -> list[str]:
    """The columns of our own Parquet files that say which group a row of the span is in."""
    with _parquet_file(path) as file:
        names = file.schema_arrow.names
        wanted = ["step", "group"] if _is_full(file, "group", span) else ["step", "group", "prompt"]
        return [name for name in wanted if name in names]


def _is_full(file: "pq.ParquetFile", column: str, span: Span) -> bool:
    """Whether the file's statistics say that the column has a value in every row of the span."""
    names = [file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)]
    if column not in names:
        return False
    index = names.index(column)
    found = [file.metadata.row_group(i).column(index).statistics for i in range(span.position, span.end)]
    return all(part is not None and part.has_null_count and part.null_count == 0 for part in found)


def parsed(row: object) -> object:
    """A row's value: text is JSON without white space around it (faster than json.loads on short rows)."""
    if isinstance(row, bytes):
        row = row.decode()  # to raise the error about it
    if not isinstance(row, str):
        return row
    value, end = _DECODER.raw_decode(row)
    return value if end == len(row) else json.loads(row)  # to raise the error about the rest


def reason_of(error: Exception) -> str:
    """Why a row is a bad one."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg} at character {error.pos + 1})"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text (byte {error.object[error.start]:#x} at {error.start + 1})"
    return f"there is no key {error}" if isinstance(error, KeyError) else str(error)


def _text(line: bytes) -> str | bytes:
    try:
        return line.decode().strip("\ufeff \t\r\n")
    except UnicodeDecodeError:
        return line


def _json_rows(path: Path, span: Span | None) -> Iterator[Row]:
    offset, end = (span.position, span.end) if span else (0, path.stat().st_size)
    with path.open("rb") as file:
        file.seek(offset)
        for number, line in enumerate(file, start=span.first_row if span else 1):
            text = _text(line)
            if text:
                yield number, text
            offset += len(line)
            if offset >= end:
                return


def refuse_doubles(columns: Sequence[str], name: str) -> None:
    """Raise DataError where two columns of a table have one name: the later would hide the earlier."""
    doubles = [column for column, count in Counter(columns).items() if count > 1]
    if doubles:
        raise DataError(f"{name}: several columns are called {doubles[0]!r}: rename or drop all but one")


def _json_spans(path: Path, num_bytes: int) -> Iterator[Span]:
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = 0
        while begin < size:
            file.seek(min(begin + num_bytes, size) - 1)
            file.readline()  # to the end of the line that the last byte is in
            yield Span(position=begin, end=file.tell())
            begin = file.tell()


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
            refuse_doubles(file.schema_arrow.names, str(path))
            yield file
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet (truncated or damaged?): {error}") from None


def _parquet_spans(path: Path, num_rows: int) -> Iterator[Span]:
    with _parquet_file(path) as file:
        begin, first, count = 0, 1, 0
        for index in range(file.num_row_groups):
            count += file.metadata.row_group(index).num_rows
            if count >= num_rows or index == file.num_row_groups - 1:
                yield Span(position=begin, end=index + 1, first_row=first, num_rows=count)
                begin, first, count = index + 1, first + count, 0


def _parquet_rows(path: Path, span: Span | None, columns: Sequence[str] | None = None) -> Iterator[Row]:
    number = span.first_row if span else 1
    with _parquet_file(path) as file:
        groups = range(span.position, span.end) if span else range(file.num_row_groups)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=columns):
            names = batch.schema.names
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield number, dict(zip(names, values, strict=True))
                number += 1
