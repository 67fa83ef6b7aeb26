"""Rollouts as they are given in Python: a file, Rollout objects, rows, or a table of any kind."""

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from verl_lite.errors import DataError
from verl_lite.lab.formats import AUTO, converter_for
from verl_lite.lab.groups import GroupKey, group_key
from verl_lite.plugins import Rollout, ScoredRollout
from verl_lite.plugins.records import Record, RecordWriter, read_records, to_record


def read_source(source: Any, *, format: str = AUTO) -> list[Record]:
    """The records of `source`, in its order.

    A path; Rollout objects, rows (dicts as in a JSONL file) or Records; a pandas or polars DataFrame, an
    Arrow table or a `datasets.Dataset`, one row per rollout. Raises DataError for anything else, and for a
    row that is no rollout.
    """
    if isinstance(source, (str, Path)):
        return list(read_records(source, convert=converter_for(source, format)))
    if isinstance(source, (Rollout, Mapping)):
        source = [source]
    records = [_record(row, number) for number, row in enumerate(_rows(source), start=1)]
    if not records:
        raise DataError("there are no rollouts: the source is empty")
    return records


def _rows(source: Any) -> Iterable[Any]:
    if hasattr(source, "to_pylist"):  # an Arrow table
        return source.to_pylist()  # type: ignore[no-any-return]
    if hasattr(source, "to_dicts"):  # polars
        return source.to_dicts()  # type: ignore[no-any-return]
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
        return source.to_dict("records")  # type: ignore[no-any-return]
    if isinstance(source, Iterable):
        return source
    raise DataError(
        f"cannot read rollouts from {type(source).__name__}: expected a path, rollouts, rows or a table"
    )


def _record(row: Any, number: int) -> Record:
    if isinstance(row, Record):
        return row
    if isinstance(row, ScoredRollout):
        row = row.rollout
    if isinstance(row, Rollout):
        return Record(rollout=row, row=number)
    try:
        return to_record(_plain(row), number)
    except (TypeError, ValueError, LookupError) as error:
        raise DataError(f"row {number}: {error}") from None


def _plain(value: Any) -> Any:
    """The cells of a table as builtins; nan, which tables write for a missing cell, is None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy
        return _plain(value.tolist())
    if isinstance(value, float) and math.isnan(value):
        return None
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def in_groups(records: Iterable[Record]) -> dict[GroupKey, list[Record]]:
    """The samples of each prompt and step together, in the order of their first ones."""
    groups: dict[GroupKey, list[Record]] = {}
    for record in records:
        groups.setdefault(group_key(record), []).append(record)
    return groups


@contextmanager
def as_file(source: Any, *, format: str = AUTO) -> Iterator[tuple[Path, str]]:
    """A file with the rollouts of `source` and its format: the file itself, or a temporary one of ours."""
    if isinstance(source, (str, Path)):
        yield Path(source), format
        return
    records = [record for group in in_groups(read_source(source, format=format)).values() for record in group]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rollouts.parquet"
        rows = [ScoredRollout(rollout=record.rollout, components={}, reward=None) for record in records]
        with RecordWriter(path) as writer:
            writer.write(rows, steps=[record.step for record in records])
        yield path, "verl-lite"
