"""Torn groups: every row goes to the partition of its group, on disk, and is read back group by group.

A partition holds whole groups, in the order in which they first appear, and is small enough for memory.
"""

import pickle
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from verl_lite.lab.groups import number_samples
from verl_lite.lab.reading.index import Order, SpanIndex
from verl_lite.lab.reading.record_file import RecordFile
from verl_lite.plugins.progress import counted
from verl_lite.plugins.records import BadRow, Record, read_rows
from verl_lite.plugins.records.reader import converted

_MAX_PARTITIONS = 256  # files open at once


@dataclass(frozen=True, slots=True)
class Partition:
    """Whole groups of `files`, spilled to `path`."""

    path: Path
    files: Sequence[RecordFile]

    def groups(self, on_bad_row: Callable[[BadRow], None] | None = None) -> Iterator[list[Record]]:
        """The groups in the order of their first records; each one's records in the order of the files."""
        rows: dict[int, list[tuple[int, int, object, Sequence[int]]]] = defaultdict(list)
        with self.path.open("rb") as file:
            while True:
                try:
                    entry = pickle.load(file)
                except EOFError:
                    break
                for ordinal in dict.fromkeys(entry[3]) or [-1]:
                    rows[ordinal].append(entry)
        for ordinal in sorted(rows):
            group = []
            for file_index, number, row, ordinals in rows.pop(ordinal):
                source = self.files[file_index]
                records = converted(row, number, source.convert, on_bad_row, source.name)
                group += [record for record, of in zip(records, ordinals, strict=False) if of == ordinal]
            if group:
                yield number_samples(group)


def spill(
    files: Sequence[RecordFile],
    indices: Sequence[Sequence[SpanIndex]],
    order: Order,
    folder: Path,
    *,
    records_per_partition: int,
) -> list[Partition]:
    """Write every row of `files` to the partitions of its groups. One pass, sequential on both sides.

    Unreadable rows go to the first partition, whose reader reports them.
    """
    places = _partition_of_group(order, records_per_partition)
    paths = [folder / f"partition-{index}" for index in range(places[-1] + 1 if places else 1)]
    with ExitStack() as stack:
        outputs = [stack.enter_context(path.open("wb")) for path in paths]
        at = 0
        for file_index, (file, spans) in enumerate(zip(files, indices, strict=True)):
            for index in counted(spans, "sorting", total=len(spans)):
                for number, row in read_rows(file.path, index.span):
                    count = index.counts[number - index.span.first_row]
                    ordinals = order.ordinals[at : at + count].tolist()
                    at += count
                    entry = pickle.dumps((file_index, number, row, ordinals), protocol=5)
                    for place in {places[ordinal] for ordinal in ordinals} or {0}:
                        outputs[place].write(entry)
    return [Partition(path, files) for path in paths]


def _partition_of_group(order: Order, records_per_partition: int) -> "array[int]":
    """The partition of every group: neighbours share one until it is full."""
    sizes = array("I", bytes(4 * order.num_groups))
    for ordinal in order.ordinals:
        sizes[ordinal] += 1
    target = max(records_per_partition, len(order.ordinals) // _MAX_PARTITIONS + 1)
    places, place, filled = array("I"), 0, 0
    for size in sizes:
        if filled >= target:
            place, filled = place + 1, 0
        places.append(place)
        filled += size
    return places
