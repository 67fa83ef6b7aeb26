"""Any container to one of the two that are read in place: JSONL (text rows) and Parquet (columns).

Compressed files, JSON documents, CSV, Arrow and inspect's `.eval` archives are rewritten once, row by
row, in a temporary folder; a row keeps its number. What a file is, its first bytes say; its name counts
only where they do not (CSV).
"""

import ast
import csv
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from verl_lite.errors import DataError
from verl_lite.lab.reading.places import Place
from verl_lite.plugins.records import to_json
from verl_lite.plugins.records.reader import JSONL_SUFFIXES

_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}
_XZ = b"\xfd7zXZ\x00"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # what PowerShell's `>` writes
_ZIP_ZSTD = 93
_ZIP_HEADER = struct.Struct("<26xHH")  # of a member: the lengths of its name and its extra field are last
_READ_CHARS = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")


def plain_file(place: Place, folder: Path) -> Path:
    """A JSONL or Parquet file with the rows of `place`: itself, or one made in `folder`.

    Raises DataError for a damaged file, an unknown kind, and a full disk.
    """
    with place.path.open("rb") as file:
        head = file.read(1 << 16)
    target = folder / f"plain-{len(list(folder.iterdir()))}.jsonl"
    try:
        return _plain(place, head, target, folder)
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{place.name} cannot be read (truncated or damaged?): {error}") from None


def _plain(place: Place, head: bytes, target: Path, folder: Path) -> Path:
    if head.startswith(_XZ) or any(head.startswith(magic) for magic in _COMPRESSED):
        return plain_file(_decompressed(place, head, target), folder)
    for magic, rewrite in _BINARY.items():
        if head.startswith(magic):
            return rewrite(place, target)
    suffix = _suffix(place)
    if head.startswith(b"PAR1") or suffix == ".parquet":
        return _named(place, ".parquet", target)
    if suffix in (".csv", ".tsv"):
        return _write(target, _csv_rows(place.path, "\t" if suffix == ".tsv" else ","))
    if head.startswith(_UTF16):
        text = place.path.read_text(encoding="utf-16")
        target.write_text(text, encoding="utf-8")
        return plain_file(Place(path=target, name=place.name), folder)
    if _is_document(place.path, head):
        return _write(target, json_values(place.path))
    if suffix not in JSONL_SUFFIXES and not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        raise DataError(
            f"{place.name}: expected JSONL, JSON, Parquet, Arrow, CSV or inspect's .eval, plain or "
            f"compressed (.gz, .zst, .xz, .bz2); the file begins with {head[:20]!r}"
        )
    return _named(place, ".jsonl", target)


def _suffix(place: Place) -> str:
    path = Path(place.name)
    return (
        path.with_suffix("").suffix if path.suffix in (".gz", ".zst", ".xz", ".bz2", ".lz4") else path.suffix
    )


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
    return Place(path=path, name=place.name, is_found=place.is_found)


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
        with parquet.ParquetWriter(path, reader.schema.remove_metadata()) as writer:
            for batch in batches:
                writer.write_batch(batch)
    return path


def _from_archive(place: Place, target: Path) -> Path:
    """A zip archive: inspect's `.eval` log, or what torch saved."""
    with zipfile.ZipFile(place.path) as archive:
        names = archive.namelist()
        samples = [name for name in names if name.startswith("samples/")]
        if "header.json" in names and samples:
            header = json.loads(_member(archive, "header.json"))
            rows = ({"eval": header["eval"], **json.loads(_member(archive, name))} for name in samples)
            return _write(target, rows)
    if any(name.endswith("data.pkl") for name in names):
        return _write(target, _torch_rows(place))
    raise DataError(f"{place.name}: a zip archive, but neither an .eval log of inspect nor a file of torch")


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


def _csv_rows(path: Path, delimiter: str) -> Iterator[Any]:
    """Rows of text; empty cells are left out, and a list of messages written as text becomes one."""
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, delimiter=delimiter):
            if None in row:  # text is no row: it is counted as a bad one, with this reason to read
                yield f"more cells than the header names: {list(row.values())}"
            else:
                kept = {key: text for key, text in row.items() if key and text is not None}
                yield {key: _cell(text) for key, text in kept.items() if text or key == "completion"}


def _cell(text: str) -> Any:
    if not text.startswith("[{"):
        return text
    for read in (json.loads, ast.literal_eval):  # as JSON, or as pandas writes lists
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if all(isinstance(m, dict) and ("role" in m or "from" in m) for m in value):
            return value
    return text


def _is_document(path: Path, head: bytes) -> bool:
    """Whether the text is a JSON array, or objects that span lines, rather than an object per line."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] not in (b"[", b"{"):
        return False
    first_line, _, rest = start.partition(b"\n")
    if not rest.strip():
        return start.startswith(b"[")
    try:
        json.loads(first_line)
    except (ValueError, RecursionError):
        try:
            return next(json_values(path), None) is not None
        except ValueError:
            return False
    return False


def json_values(path: Path) -> Iterator[Any]:
    """The elements of a JSON array, or the values that follow one another; never the whole file at once.

    Raises ValueError where the text is no JSON.
    """
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig") as file:
        text, at = file.read(_READ_CHARS), 0
        is_array = text.lstrip().startswith("[")
        if is_array:
            at = text.index("[") + 1
        while True:
            at = _separators(text, at)
            if is_array and text.startswith("]", at):
                return
            try:
                value, end = decoder.raw_decode(text, at)
            except json.JSONDecodeError:
                more = file.read(max(_READ_CHARS, len(text) - at))
                if not more and at == len(text) and not is_array:
                    return
                if not more:
                    raise
                text, at = text[at:] + more, 0
            else:
                yield value
                at = end


def _separators(text: str, at: int) -> int:
    """Where the next value begins."""
    found = _BETWEEN.match(text, at)
    return found.end() if found else at
