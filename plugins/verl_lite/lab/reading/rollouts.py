"""The one way in: what the user names, as groups.

with open_rollouts(["runs/demo", "more.jsonl.gz"]) as rollouts:
    for group in rollouts.groups():
        ...
"""

import errno
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from verl_lite.errors import DataError
from verl_lite.lab.formats import AUTO, UnknownFormatError, format_of
from verl_lite.lab.groups import GroupKey, consecutive_groups, group_key, number_samples
from verl_lite.lab.reading.batch_requests import with_requests
from verl_lite.lab.reading.containers import plain_file
from verl_lite.lab.reading.index import SPAN_BYTES, SPAN_ROWS, SpanIndex, find_order, index_span
from verl_lite.lab.reading.mapping import map_row
from verl_lite.lab.reading.places import Place, find_places
from verl_lite.lab.reading.record_file import RecordFile, detect, step_in_name
from verl_lite.lab.reading.spill import spill
from verl_lite.plugins.progress import counted
from verl_lite.plugins.records import BadRow, Record, Span, spans_of
from verl_lite.plugins.records.reader import converted

Sources = str | Path | Sequence[str | Path]
OnBadRow = Callable[[BadRow], None] | None
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # `map`, or that of a pool


class Piece(Protocol):
    """A part of the rollouts that holds whole groups. Picklable."""

    def groups(self, on_bad_row: OnBadRow = None) -> Iterator[list[Record]]: ...


@dataclass(frozen=True, slots=True)
class FilePiece:
    """A span of a file in which every group is in one piece."""

    file: RecordFile
    span: Span

    def groups(self, on_bad_row: OnBadRow = None) -> Iterator[list[Record]]:
        return map(number_samples, consecutive_groups(self.file.records(self.span, on_bad_row)))


class Rollouts:
    """Open rollouts, in any number of files and in any order.

    files    what is read
    skipped  files that were found in a folder and that no format fits
    """

    def __init__(self, files: Sequence[RecordFile], skipped: Sequence[str], folder: Path) -> None:
        self.files, self.skipped = tuple(files), tuple(skipped)
        self._folder = folder
        self._pieces: list[Piece] | None = None
        self._num_rows = 0
        self._spans = [spans_of(f.path, num_rows=SPAN_ROWS, num_bytes=SPAN_BYTES) for f in files]
        for file, spans in zip(files, self._spans, strict=True):
            if not spans:
                raise DataError(f"{file.name} holds no rollouts")

    @property
    def num_parts(self) -> int:
        """How many processes the rollouts are worth: small files together make one part."""
        parts = 0.0
        for file, spans in zip(self.files, self._spans, strict=True):
            is_parquet = file.path.suffix == ".parquet"
            size = sum(span.num_rows if is_parquet else span.end - span.position for span in spans)
            parts += size / (SPAN_ROWS if is_parquet else SPAN_BYTES)
        return round(parts)

    @property
    def num_rows(self) -> int:
        """How many rows there are, readable or not."""
        self.pieces()
        return self._num_rows

    def groups(self, on_bad_row: OnBadRow = None) -> Iterator[list[Record]]:
        """Every group once, all its records together, in the order of the groups' first records.

        Records of a group are in the order of the files; their sample indices are distinct. An unreadable
        row is passed to `on_bad_row`, or raises DataError without it.
        """
        for piece in self.pieces():
            yield from piece.groups(on_bad_row)

    def pieces(self, map: Map = map) -> list[Piece]:
        """The rollouts in parts of whole groups, to be read by several processes.

        `map` runs the pass over the groups' keys, in a pool say. Files whose groups are torn are first
        rewritten in the temporary folder. Raises DataError if that has no room.
        """
        if self._pieces is None:
            with _full_disk(self._folder):
                self._pieces = self._find_pieces(map)
        return self._pieces

    def first_records(self, count: int) -> list[Record]:
        """The first readable records of every file, `count` of each, to see what they hold."""
        skip: OnBadRow = lambda bad: None  # noqa: E731
        return [r for file in self.files for r in islice(file.records(on_bad_row=skip), count)]

    def _find_pieces(self, map: Map) -> list[Piece]:
        several = len(self.files) > 1
        tasks = [
            (file, span, several)
            for file, spans in zip(self.files, self._spans, strict=True)
            for span in spans
        ]
        done = counted(map(index_span, tasks), "reading", total=len(tasks))
        indices = [_numbered([next(done) for _ in spans]) for spans in self._spans]
        done.close()
        self._num_rows = sum(index.span.num_rows for spans in indices for index in spans)
        order = find_order(indices)
        self.files = tuple(
            replace(file, clashes=clashes) if clashes else file
            for file, clashes in zip(self.files, order.clashes, strict=True)
        )
        if order.is_in_order:
            return [
                FilePiece(file, span)
                for file, spans in zip(self.files, indices, strict=True)
                for span in _whole_groups(spans)
            ]
        return list(spill(self.files, indices, order, self._folder, records_per_partition=SPAN_ROWS))


@contextmanager
def open_rollouts(
    sources: Sources, *, format: str = AUTO, renames: Mapping[str, str] | None = None
) -> Iterator[Rollouts]:
    """Open one or several files, folders, globs, run folders, remote paths, or "-" for standard input.

    `format` is a name in FORMATS; "auto" looks at the first row of each file. `renames` is new name -> path
    in the row. Streams, remote and compressed files, CSV, Arrow and JSON documents are rewritten once in a
    temporary folder (TMPDIR), which is removed at the end. Raises DataError for what is missing, damaged
    or in no known format, ConfigError for an unknown format or a protocol that fsspec lacks.
    """
    named = [sources] if isinstance(sources, (str, Path)) else list(sources)
    with tempfile.TemporaryDirectory(prefix="verl-lite-") as name, _full_disk(Path(name)):
        folder = Path(name)
        places = find_places(named, folder)
        files, skipped = _record_files(places, folder, format, dict(renames or {}))
        yield Rollouts(files, skipped, folder)


def _record_files(
    places: Sequence[Place], folder: Path, format: str, renames: Mapping[str, str]
) -> tuple[list[RecordFile], list[str]]:
    files, skipped = [], []
    for place in places:
        path = plain_file(place, folder)
        try:
            found = detect(path, name=place.name, format=format, renames=renames)
        except UnknownFormatError:
            if not place.is_found:
                raise
            skipped.append(place.name)
            continue
        files.append(
            RecordFile(
                path=path,
                origin=place.path,
                name=place.name,
                format=found,
                renames=renames,
                step=step_in_name(found, place.name),
            )
        )
    if not files:
        raise UnknownFormatError(f"none of these files is in a known format: {', '.join(skipped)}")
    files = with_requests(files, folder)
    in_folders = {place.name for place in places if place.is_found}
    found_formats = sorted({file.format for file in files if file.name in in_folders})
    if len(found_formats) > 1:
        raise DataError(
            f"the folder holds rollouts in several formats ({', '.join(found_formats)}), perhaps the same "
            "ones twice: name the files to read"
        )
    return _apart(files), skipped


def _apart(files: list[RecordFile]) -> list[RecordFile]:
    """With several files: a prefix for each, its name without folder and suffix where that is enough."""
    if len(files) < 2:
        return files
    short = [Path(file.name).name.split(".")[0] for file in files]
    names = short if len(set(short)) == len(files) else [file.name for file in files]
    return [replace(file, prefix=name) for file, name in zip(files, names, strict=True)]


def _numbered(indices: Sequence[SpanIndex]) -> list[SpanIndex]:
    """The spans of one file, with the numbers of their first rows."""
    counted, row = [], 1
    for index in indices:
        counted.append(replace(index, span=replace(index.span, first_row=row)))
        row += index.span.num_rows
    return counted


def _whole_groups(indices: Sequence[SpanIndex]) -> Iterator[Span]:
    """Spans about as large as the index's that begin where a group begins; all groups are in one piece."""
    cuts = [(indices[0].span.position, 1)]
    last = None
    for index in indices:
        if index.keys:
            if last is not None and index.keys[0] != last:
                cuts.append((index.span.position, index.span.first_row))
            elif last is not None and index.border is not None:
                offset, lines = index.border
                cuts.append((offset, index.span.first_row + lines))
            last = index.keys[-1]
    ends = [position for position, _ in cuts[1:]] + [indices[-1].span.end]
    for (position, row), end in zip(cuts, ends, strict=True):
        yield Span(position=position, end=end, first_row=row)


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    """Explain a temporary folder that has no room."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DataError(f"the temporary folder {folder} is full: free space there, or set TMPDIR") from None


def group_records(records: Iterable[Record]) -> list[list[Record]]:
    """The groups of records in memory, whatever their order; indices as in `Rollouts.groups`."""
    groups: dict[GroupKey, list[Record]] = {}
    for record in records:
        groups.setdefault(group_key(record), []).append(record)
    return [number_samples(group) for group in groups.values()]


def records_of_rows(
    rows: Iterable[Mapping[str, Any]], *, format: str = AUTO, renames: Mapping[str, str] | None = None
) -> Iterator[Record]:
    """The records of rows in memory, such as those of a DataFrame; format and renames as for files.

    Raises DataError for an unreadable row, with its number from 1.
    """
    file: RecordFile | None = None
    for number, row in enumerate(rows, start=1):
        if file is None:
            first = map_row(row, renames or {})
            found = format_of(first, name="the rows", format=format)
            file = RecordFile(
                path=Path(), origin=Path(), name="the rows", format=found, renames=renames or {}
            )
        yield from converted(row, number, file.convert, None, file.name)
