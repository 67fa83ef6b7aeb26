"""The rows of a data set, one after the other, as training reads them: any container, no format."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from verl_lite.errors import DataError
from verl_lite.lab.reading.containers import plain_file
from verl_lite.lab.reading.places import find_places, of_split
from verl_lite.plugins.records import read_rows
from verl_lite.plugins.records.reader import parsed, reason_of

Row = Mapping[str, object]


def data_rows(sources: str | Sequence[str], *, split: str) -> Iterator[tuple[str, Row]]:
    """(place, row) of each row of the sources, which are named as for `open_rollouts`.

    `place` is for messages: the file and the row in it, from 0. Of a folder, glob or saved data set whose
    files say splits, those of `split` are read. Raises DataError for what is missing, damaged or no row.
    """
    with tempfile.TemporaryDirectory(prefix="verl-lite-") as name:
        folder = Path(name)
        for source in [sources] if isinstance(sources, str) else sources:
            for place in of_split(find_places([source], folder), split, source=source):
                for index, (number, row) in enumerate(read_rows(plain_file(place, folder))):
                    yield f"{place.name}, row {index}", _mapping(row, place.name, number, index)


def _mapping(row: object, name: str, number: int, index: int) -> Row:
    try:
        value = parsed(row)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}:{number}: {reason_of(error)}") from None
    if not isinstance(value, Mapping):
        raise DataError(f"{name}, row {index}: expected an object, got {value!r:.200}")
    return value
