"""Any container to one of the two that are read in place: JSONL (text rows) and Parquet (columns).

Compressed files, JSON documents, CSV, Arrow and inspect's `.eval` archives are rewritten once, row by
row, in a temporary folder; a row keeps its number. What a file is, its first bytes say; its name counts
only where they do not (CSV).
"""

import csv
import itertools
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from verl_lite.errors import DataError
from verl_lite.lab.formats.chats import parsed_chat
from verl_lite.lab.reading.places import Place, plain_suffix
from verl_lite.plugins.records import to_json
from verl_lite.plugins.records.reader import JSONL_SUFFIXES, refuse_doubles
from verl_lite.plugins.strict_json import without_doubles

_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}
_XZ = b"\xfd7zXZ\x00"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # what PowerShell's `>` writes
_ZIP_ZSTD = 93
_ZIP_HEADER = struct.Struct("<26xHH")  # of a member: the lengths of its name and its extra field are last
_READ_CHARS = 1 << 20
_ROW_LISTS = ("data", "rows", "examples", "request_states")
_LFS_POINTER = b"version https://git-lfs.github.com"
_BETWEEN = re.compile(r"[\s,]*")


def plain_file(place: Place, folder: Path) -> Path:
    """A JSONL or Parquet file with the rows of `place`: itself, or one made in `folder`.

    Raises DataError for a damaged file and an unknown kind.
    """
    with place.path.open("rb") as file:
        head = file.read(1 << 16)
    target = folder / f"plain-{len(list(folder.iterdir()))}.jsonl"
    try:
        return _plain(place, head, target, folder)
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{place.name} is not UTF-8 text ({error}): save it as UTF-8") from None
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"{place.name} cannot be read (truncated or damaged?): {error}") from None


def _plain(place: Place, head: bytes, target: Path, folder: Path) -> Path:
    if head.startswith(_XZ) or any(head.startswith(magic) for magic in _COMPRESSED):
        return plain_file(_decompressed(place, head, target), folder)
    for magic, rewrite in _BINARY.items():
        if head.startswith(magic):
            return rewrite(place, target)
    if head.startswith(_LFS_POINTER):
        raise DataError(f"{place.name} is a pointer of Git LFS, not the file itself: run `git lfs pull`")
    suffix = plain_suffix(place.name)
    if head.startswith(b"PAR1") or suffix == ".parquet":
        return _named(place, ".parquet", target)
    if head.startswith(_UTF16):
        text = place.path.read_text(encoding="utf-16")
        target.write_text(text, encoding="utf-8")
        return plain_file(replace(place, path=target), folder)
    if b"\r" in head and b"\n" not in head:  # line ends of old Macs
        with place.path.open(encoding="utf-8-sig") as lines, target.open("w", encoding="utf-8") as file:
            file.writelines(lines)
        return plain_file(replace(place, path=target), folder)
    if suffix in (".csv", ".tsv"):
        return _write(target, _csv_rows(place))
    if _is_document(place.path, head, wraps=suffix == ".json"):
        return _write(target, _unwrapped(json_values(place.path)))
    if suffix not in JSONL_SUFFIXES and not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        raise DataError(
            f"{place.name}: expected JSONL, JSON, Parquet, Arrow, CSV or inspect's .eval, plain or "
            f"compressed (.gz, .zst, .xz, .bz2); the file begins with {head[:20]!r}"
        )
    return _named(place, ".jsonl", target)


def _named(place: Place, suffix: str, target: Path) -> Path:
    """The file itself, or a link to it whose suffix says what it is."""
    accepted = JSONL_SUFFIXES if suffix == ".jsonl" else (suffix,)
    if place.path.suffix in accepted:
        return place.path
    link = target.with_suffix(suffix)
    link.symlink_to(place.path.resolve())
    return link


def _decompressed(place: Place, head: bytes, target: Path) -> Place:
    import lzma
    import shutil

    import pyarrow as pa

    path = target.with_name(f"{target.stem}-{Path(place.name).stem}")
    with path.open("wb") as plain:
        if head.startswith(_XZ):
            with lzma.open(place.path) as packed:
                shutil.copyfileobj(packed, plain, _READ_CHARS)
        else:
            kind = next(name for magic, name in _COMPRESSED.items() if head.startswith(magic))
            with pa.input_stream(str(place.path), compression=kind) as packed:
                shutil.copyfileobj(packed, plain, _READ_CHARS)
    return replace(place, path=path)


def _write(target: Path, rows: Iterable[Any]) -> Path:
    with target.open("w", encoding="utf-8") as file:
        file.writelines(to_json(row) + "\n" for row in rows)
    return target


def _from_arrow(place: Place, target: Path) -> Path:
    """An Arrow file (Feather 2) or stream (as `datasets` saves them), as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = target.with_suffix(".parquet")
    with pa.memory_map(str(place.path)) as source:
        try:
            reader = pa.ipc.open_file(source)
            batches: Iterable[Any] = (reader.get_batch(i) for i in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            reader = pa.ipc.open_stream(source)
            batches = reader
        try:
            with parquet.ParquetWriter(path, reader.schema.remove_metadata()) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        except pa.ArrowNotImplementedError:  # objects without keys, as in the schemas of tools
            return _write(target, (row for batch in batches for row in batch.to_pylist()))
    return path


def _from_archive(place: Place, target: Path) -> Path:
    """A zip archive: inspect's `.eval` log, what torch saved, or one file of rows."""
    with zipfile.ZipFile(place.path) as archive:
        names = archive.namelist()
        samples = [name for name in names if name.startswith("samples/")]
        if "header.json" in names and samples:
            header = json.loads(_member(archive, "header.json"))
            rows = ({"eval": header["eval"], **json.loads(_member(archive, name))} for name in samples)
            return _write(target, rows)
    if any(name.endswith("data.pkl") for name in names):
        return _write(target, _torch_rows(place))
    if len(names) != 1:
        raise DataError(
            f"{place.name}: a zip archive of {len(names)} files, but neither an .eval log of inspect nor a "
            "file of torch: unpack it, and name its files"
        )
    with zipfile.ZipFile(place.path) as archive:
        path = Path(archive.extract(names[0], target.with_suffix("")))
    return plain_file(replace(place, path=path, name=f"{place.name}/{names[0]}"), target.parent)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """One file of a zip archive, also where it is compressed with zstd, which Python's zipfile lacks."""
    info = archive.getinfo(name)
    if info.compress_type != _ZIP_ZSTD or archive.fp is None:
        return archive.read(name)
    import pyarrow as pa

    archive.fp.seek(info.header_offset)
    header = archive.fp.read(_ZIP_HEADER.size)
    name_bytes, extra_bytes = _ZIP_HEADER.unpack(header)
    archive.fp.seek(name_bytes + extra_bytes, os.SEEK_CUR)
    packed = archive.fp.read(info.compress_size)
    plain: bytes = pa.decompress(packed, decompressed_size=info.file_size, codec="zstd", asbytes=True)
    return plain


def _torch_rows(place: Place) -> Iterator[dict[str, Any]]:
    """The `samples` of slime's debug data, read without running anything that is in the file."""
    try:
        import torch
    except ImportError:
        raise DataError(
            f"{place.name}: a file of torch needs torch: pip install 'verl-lite[train]'"
        ) from None
    try:
        data = torch.load(place.path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise DataError(f"{place.name} holds more than plain data: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("samples"), list):
        raise DataError(f"{place.name}: expected a dictionary with a list of 'samples'")
    for sample in data["samples"]:
        yield {"rollout_id": data.get("rollout_id"), **sample}


_BINARY: dict[bytes, Callable[[Place, Path], Path]] = {
    b"ARROW1": _from_arrow,
    b"\xff\xff\xff\xff": _from_arrow,
    b"PK\x03\x04": _from_archive,
}


_NO_CELL = "\0"


def _csv_rows(place: Place) -> Iterator[object]:
    """Rows of text; empty cells are None, and a list of messages written as text becomes one.

    What divides cells is what divides the header: Excel writes tabs and semicolons too.
    """
    csv.field_size_limit(2**31 - 1)
    with place.path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=max(",;\t", key=header.count), strict=True, restval=_NO_CELL)
        try:
            refuse_doubles([name for name in reader.fieldnames or () if name], place.name)
            for row in reader:
                if None in row:  # text is no row: it is counted as a bad one, with this reason to read
                    yield f"more cells than the header names: {list(row.values())}"
                elif _NO_CELL in row.values():
                    yield f"fewer cells than the header names: {[v for v in row.values() if v != _NO_CELL]}"
                else:
                    yield {key: _cell(key, text) for key, text in row.items() if key}
        except csv.Error as error:
            raise DataError(f"{place.name}:{reader.line_num} is not valid CSV: {error}") from None


def _cell(column: str, text: str | None) -> object:
    if not text:
        return "" if column == "completion" else None
    return parsed_chat(text)


def _unwrapped(values: Iterator[JsonValue]) -> Iterator[JsonValue]:
    """The values, or the rows of the first where it is an object that holds them, as in {"data": [...]}."""
    for value in values:
        rows = _rows_in(value)
        yield from rows or [value]


def _rows_in(value: JsonValue) -> list[JsonValue]:
    """The rows that an object holds: a list of them, or a table as pandas and trackers write it."""
    if not isinstance(value, dict):
        return []
    names, cells = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(cells, list) and all(isinstance(row, list) for row in cells):
        refuse_doubles([str(name) for name in names], "the table")
        return [dict(zip(map(str, names), row, strict=True)) for row in cells if isinstance(row, list)]
    found = next((rows for name in _ROW_LISTS if isinstance(rows := value.get(name), list)), [])
    if found and all(isinstance(row, dict) and {"row_idx", "row"} <= row.keys() for row in found):
        return [row["row"] for row in found if isinstance(row, dict)]  # the Hub's server of rows
    return found or _keyed_rows(value)


def _keyed_rows(value: dict[str, JsonValue]) -> list[JsonValue]:
    """The rows of {"0": row, "1": row}, {"column": {"0": cell}} and {"completion": [cell, ...]}."""
    inner = [part for part in value.values() if isinstance(part, dict)]
    if inner and len(inner) == len(value):
        if all(map(str.isdecimal, value)):
            return list(inner)
        if all(part.keys() == inner[0].keys() and all(map(str.isdecimal, part)) for part in inner):
            return [{name: part[at] for name, part in zip(value, inner, strict=True)} for at in inner[0]]
    lists = [part for part in value.values() if isinstance(part, list)]
    texts = value.get("completion")
    is_table = isinstance(texts, list) and len(lists) == len(value) and {*map(len, lists)} == {len(texts)}
    if is_table and isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        return [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)]
    return []


def _is_document(path: Path, head: bytes, *, wraps: bool) -> bool:
    """Whether the text is a JSON array, or objects that span lines, rather than an object per line.

    With `wraps` also an object in one line that holds the rows.
    """
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] not in (b"[", b"{"):
        return False
    first_line, _, rest = start.partition(b"\n")
    if not rest.strip():
        return start.startswith(b"[") or _holds_several(path, wraps=wraps)
    try:
        json.loads(first_line)
    except (ValueError, RecursionError):
        try:
            return next(json_values(path), None) is not None
        except ValueError:
            return False
    return False


def _holds_several(path: Path, *, wraps: bool) -> bool:
    """Whether a file of one line has several objects side by side, or (`wraps`) one that holds the rows."""
    try:
        values = list(itertools.islice(json_values(path), 2))
    except ValueError:
        if wraps:
            raise
        return False
    return len(values) > 1 or (wraps and bool(values and _rows_in(values[0])))


def json_values(path: Path) -> Iterator[JsonValue]:
    """The elements of a JSON array, or the values that follow one another; never the whole file at once.

    Raises ValueError, with the line, where the text is no JSON.
    """
    decoder = json.JSONDecoder(object_pairs_hook=without_doubles)
    with path.open(encoding="utf-8-sig") as file:
        text, at, lines = file.read(_READ_CHARS), 0, 0
        is_array = text.lstrip().startswith("[")
        if is_array:
            at = text.index("[") + 1
        while True:
            at = _separators(text, at)
            if is_array and text.startswith("]", at):
                return
            try:
                value, end = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                more = file.read(max(_READ_CHARS, len(text) - at))
                if not more and at == len(text) and not is_array:
                    return
                if not more:
                    raise ValueError(f"line {lines + error.lineno} is not valid JSON: {error.msg}") from None
                lines += text.count("\n", 0, at)
                text, at = text[at:] + more, 0
            else:
                yield value
                at = end


def _separators(text: str, at: int) -> int:
    """Where the next value begins."""
    found = _BETWEEN.match(text, at)
    return found.end() if found else at
