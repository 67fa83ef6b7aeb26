"""Which records belong together: one cheap pass over the groups' keys, before anything is scored.

A group's key is (step, group): samples of one prompt at different training steps are different groups.
The index has 8 bytes per record (a digest of its key: two of n groups collide with a probability of
n*n/2**65), 4 bytes per row, and some 100 bytes per group.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

from verl_lite.lab.groups import GroupKey
from verl_lite.lab.reading.record_file import RecordFile, key_digest
from verl_lite.plugins.records import Span, read_rows
from verl_lite.plugins.records.reader import group_columns, lines_at

SPAN_ROWS = 20_000  # at least, in Parquet
SPAN_BYTES = 4 << 20  # about, in JSONL


@dataclass(frozen=True, slots=True)
class SpanIndex:
    """The keys of one span's records, in order, and how many records each of its rows has.

    `openings` has a digest of each record's first messages; it is empty unless asked for.
    `border` is the first row, not the span's first, that begins another group than the row before it:
    (byte offset, lines of the span before it). None where there is none, and in Parquet.
    """

    span: Span
    keys: "array[int]"
    counts: "array[int]"
    openings: "array[int]"
    border: tuple[int, int] | None


def index_span(task: tuple[RecordFile, Span, bool]) -> SpanIndex:
    """Read one span of a file for its keys; the last of the three says whether to read openings too.

    Unreadable rows have no record here; whoever reads the span reports them.
    """
    file, span, with_openings = task
    keys, openings, counts = array("Q"), array("Q"), array("I")
    border: tuple[int, int] | None = None
    last: GroupKey | None = None
    digest = line = 0
    for offset, line, row in _rows(file, span):
        # The number is unique in the file: rows that name neither group nor prompt are groups of their own.
        found = file.keys(row, span.position + line, with_openings)
        counts.append(len(found))
        if offset and found and border is None and last is not None and found[0][0] != last:
            border = offset, line - 1
        for key, opening in found:
            if key != last:
                digest, last = key_digest(key), key
            keys.append(digest)
            if with_openings:
                openings.append(opening)
    return SpanIndex(replace(span, num_rows=span.num_rows or line), keys, counts, openings, border)


def _rows(file: RecordFile, span: Span) -> Iterator[tuple[int, int, object]]:
    """(byte offset, 0 in Parquet; number within the span from 1; row)."""
    if file.path.suffix != ".parquet":
        for line, (offset, text) in enumerate(lines_at(file.path, span), start=1):
            yield offset, line, text
        return
    columns = group_columns(file.path, span) if file.is_own else None
    for line, (_, row) in enumerate(read_rows(file.path, span, columns=columns), start=1):
        yield 0, line, row


@dataclass(frozen=True, slots=True)
class Order:
    """The groups of all files: `ordinals[i]` is the group of record i, numbered by first appearance.

    `is_in_order` says that every group is in one piece, inside one file. `clashes` has, per file, the
    keys that an earlier file has for another prompt, with the digest of this file's first messages.
    """

    ordinals: "array[int]"
    num_groups: int
    is_in_order: bool
    clashes: Sequence[Mapping[int, int]]


def find_order(files: Sequence[Sequence[SpanIndex]]) -> Order:
    """Number the groups of all files. Across files, a group is the same if its first messages are too."""
    ordinals = array("I")
    groups: dict[int, int] = {}  # a group's key and opening -> its ordinal
    openings: dict[int, int] = {}  # a group's key -> the opening it has in the first file that has it
    is_in_order = True
    clashes = []
    for indices in files:
        here: dict[int, int] = {} if len(files) > 1 else groups  # a group's key -> its ordinal
        clashing: dict[int, int] = {}
        last = None
        for key, opening in _keys(indices):
            if key != last:
                is_in_order = is_in_order and key not in here
                if key not in here and len(files) > 1:
                    if openings.setdefault(key, opening) != opening:
                        clashing[key] = opening
                    is_in_order = is_in_order and key ^ opening not in groups
                    here[key] = groups.setdefault(key ^ opening, len(groups))
                ordinal, last = here.setdefault(key, len(groups)), key
            ordinals.append(ordinal)
        clashes.append(clashing)
    return Order(ordinals, len(groups), is_in_order, clashes)


def _keys(indices: Sequence[SpanIndex]) -> Iterator[tuple[int, int]]:
    for index in indices:
        openings: Iterable[int] = index.openings or repeat(0)
        yield from zip(index.keys, openings)
