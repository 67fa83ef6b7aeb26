"""Files of rows: which ones a path names, and the rows of each, one after the other.

A path is a file, a folder (of shards, or one that `datasets` saved) or a glob. Rows are streamed, except
those of a .json array, which is parsed as a whole. Text files may be compressed (.gz, .bz2, .zst, .lz4).
"""

import csv
import glob
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_lite.errors import DataError

Row = Mapping[str, Any]
COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")
SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "held_out": "held_out",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
ROW_LISTS = ("data", "rows", "examples")
SAVED_MARKS = ("state.json", "dataset_dict.json")  # what `datasets` writes with save_to_disk


def find_files(paths: str | Sequence[str], *, split: str) -> list[Path]:
    """The files, or saved folders, that the paths name, sorted within each path.

    Of a folder or glob whose file names name splits (train-00000.parquet), those of `split`. Raises DataError
    for a path without files.
    """
    found: list[Path] = []
    for path in [paths] if isinstance(paths, str) else paths:
        found += _of_path(path, split=split)
    return found


def is_saved(path: Path) -> bool:
    """Whether `path` is a folder that `datasets` saved."""
    return any((path / mark).is_file() for mark in SAVED_MARKS)


def file_rows(path: Path, *, split: str) -> Iterator[tuple[str, Row]]:
    """(place, row) of each row of a file or saved folder; `place` is for messages: the path and the row."""
    read = _saved_rows if path.is_dir() else READERS[_kind(path)]
    for index, row in read(path, split):
        where = f"{path}, row {index}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: expected an object, got {type(row).__name__}")
        yield where, row


def _of_path(path: str, *, split: str) -> list[Path]:
    one = Path(path).expanduser()
    if one.is_file() or is_saved(one):
        _kind(one)
        return [one]
    if one.is_dir():
        files = [file for file in one.rglob("*") if file.is_file() and _suffix(file) in READERS]
    else:
        files = [Path(name) for name in glob.glob(str(one), recursive=True)]
        files = [file for file in files if file.is_file() or is_saved(file)]
    visible = sorted(file for file in files if not file.name.startswith((".", "_")))
    if not visible:
        raise DataError(
            f"there is no data file {path} (looked from {Path.cwd()}); expected a file "
            f"({', '.join(sorted(READERS))}), a folder of such files, a folder saved by `datasets`, or a glob"
        )
    return _of_split(visible, split, path)


def _of_split(files: Sequence[Path], split: str, path: str) -> list[Path]:
    named = {file: _split_of(file) for file in files}
    if not any(named.values()) or len(set(named.values())) == 1:
        return list(files)
    chosen = [file for file in files if named[file] == SPLITS.get(split, split)]
    if not chosen:
        splits = ", ".join(sorted({name for name in named.values() if name}))
        raise DataError(f"{path}: no file is of the split {split!r}; their names say {splits}: set split")
    return chosen


def _split_of(file: Path) -> str:
    """The split in the file's name (train-00000-of-00002.parquet), or that of its folder; "" for none."""
    for text in (file.name, file.parent.name):
        words = re.split(r"[^a-z_]|_(?!out)", text.lower())
        if found := [SPLITS[word] for word in words if word in SPLITS]:
            return found[0]
    return ""


def _suffix(path: Path) -> str:
    """The suffix that says what is in the file, without that of a compression."""
    inner = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    return inner.suffix.lower()


def _kind(path: Path) -> str:
    if path.is_dir():
        return ""
    kind = _suffix(path)
    if kind not in READERS:
        raise DataError(
            f"{path}: cannot tell what is in a {path.suffix or 'nameless'} file; expected "
            f"{', '.join(sorted(READERS))}, also compressed ({', '.join(COMPRESSIONS)})"
        )
    return kind


def _text(path: Path) -> io.TextIOWrapper:
    import pyarrow as pa

    try:
        stream = pa.input_stream(str(path), compression="detect")
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _json_rows(path: Path, _: str) -> Iterator[tuple[int, Any]]:
    """One object per line; in a .json file also one array of objects, or an object with one."""
    try:
        with _text(path) as lines:
            head = next((line for line in lines if line.strip()), "")
        with _text(path) as lines:
            if _suffix(path) == ".json" and _is_document(head):
                yield from enumerate(_array(path, lines))
            else:
                yield from _json_lines(path, lines)
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read (truncated or damaged?): {error}") from None


def _json_lines(path: Path, lines: io.TextIOWrapper) -> Iterator[tuple[int, Any]]:
    index = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number} is not valid JSON: {error}") from None
        yield index, row
        index += 1


def _is_document(line: str) -> bool:
    """Whether the first line of a .json file is not an object of JSONL."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return bool(line)
    return isinstance(value, list) or _wrapped(value) is not None


def _wrapped(value: Any) -> list[Any] | None:
    """The rows of an object that holds them, as in {"data": [...]}."""
    found = [value[name] for name in ROW_LISTS if name in value] if isinstance(value, dict) else []
    return found[0] if found and isinstance(found[0], list) else None


def _array(path: Path, lines: io.TextIOWrapper) -> list[Any]:
    try:
        value = json.loads(lines.read())
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno} is not valid JSON: {error}") from None
    if isinstance(value, list):
        return value
    return _wrapped(value) or [value]


def _csv_rows(path: Path, _: str) -> Iterator[tuple[int, Any]]:
    """Every value is text, exactly as it is written; empty cells are None."""
    csv.field_size_limit(2**31 - 1)
    with _text(path) as lines:
        reader = csv.DictReader(lines, delimiter="\t" if _suffix(path) == ".tsv" else ",", strict=True)
        try:
            for index, row in enumerate(reader):
                if None in row:
                    raise DataError(
                        f"{path}:{reader.line_num}: more cells than the {len(row) - 1} columns of the header"
                    )
                yield index, {name: text or None for name, text in row.items()}
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}:{reader.line_num} is not valid CSV: {error}") from None


def _parquet_rows(path: Path, _: str) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from None
    with file:
        yield from _rows_of(file.iter_batches(batch_size=1024))


def _arrow_rows(path: Path, _: str) -> Iterator[tuple[int, Any]]:
    """A file (Feather 2) or a stream, as `datasets` writes them."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            try:
                reader = pa.ipc.open_file(source)
                batches: Iterator[Any] = (reader.get_batch(at) for at in range(reader.num_record_batches))
            except pa.ArrowInvalid:
                source.seek(0)
                batches = iter(pa.ipc.open_stream(source))
            yield from _rows_of(batches)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not an Arrow file: {error}") from None


def _rows_of(batches: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    index = 0
    for batch in batches:
        for row in batch.to_pylist():
            yield index, row
            index += 1


def _saved_rows(path: Path, split: str) -> Iterator[tuple[int, Any]]:
    import datasets

    loaded = datasets.load_from_disk(str(path))
    if isinstance(loaded, dict):
        if split not in loaded:
            raise DataError(f"{path} has the splits {', '.join(loaded)}, not {split!r}: set split")
        loaded = loaded[split]
    yield from enumerate(undecoded(loaded))


def undecoded(rows: Any) -> Any:
    """A data set of `datasets` whose images and sound stay bytes: they are refused or ignored, never read."""
    import datasets

    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image | datasets.Audio | datasets.Video):
            rows = rows.cast_column(name, type(feature)(decode=False))
    return rows


READERS: dict[str, Callable[[Path, str], Iterator[tuple[int, Any]]]] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), _json_rows),
    **dict.fromkeys((".csv", ".tsv"), _csv_rows),
    **dict.fromkeys((".arrow", ".feather"), _arrow_rows),
    ".parquet": _parquet_rows,
}
