"""Rollouts as they are given in Python: a file, Rollout objects, rows, or a table of any kind."""

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from verl_lite.errors import DataError
from verl_lite.lab.formats import AUTO
from verl_lite.lab.groups import group_key
from verl_lite.lab.reading import open_rollouts, records_of_rows
from verl_lite.plugins import Rollout, ScoredRollout
from verl_lite.plugins.records import Record, RecordWriter

Renames = Mapping[str, str]


def read_source(source: Any, *, format: str = AUTO, renames: Renames | None = None) -> list[Record]:
    """The records of `source`: those of files group by group, others in their order.

    Paths as `verl-lite score` takes them, one or a list; Rollout objects, rows (dicts as in a JSONL file) or
    Records; a pandas or polars DataFrame, an Arrow table or a `datasets.Dataset`, one row per rollout.
    `renames` is new name -> path in the row. Raises DataError for anything else, and for a row that is no
    rollout.
    """
    if _is_path(source):
        with open_rollouts(source, format=format, renames=renames) as rollouts:
            return [record for group in rollouts.groups() for record in group]
    if isinstance(source, (Rollout, Mapping)):
        source = [source]
    records: list[Record] = []
    rows: list[dict[str, Any]] = []
    for number, item in enumerate(_rows(source), start=1):
        if isinstance(item, Mapping):
            rows.append(_plain(item))
        else:
            records.append(_record(item, number))
    if rows and records:
        raise DataError("rows and rollouts are mixed: give one or the other")
    records += records_of_rows(rows, format=format, renames=renames)
    if not records:
        raise DataError("there are no rollouts: the source is empty")
    return records


def _is_path(source: Any) -> bool:
    many = isinstance(source, (list, tuple)) and bool(source)
    return isinstance(source, (str, Path)) or (many and all(isinstance(x, (str, Path)) for x in source))


def _rows(source: object) -> Iterable[object]:
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


def _record(item: object, number: int) -> Record:
    if isinstance(item, Record):
        return item
    rollout = item.rollout if isinstance(item, ScoredRollout) else item
    if not isinstance(rollout, Rollout):
        raise DataError(
            f"row {number}: expected a rollout or a row, got {type(item).__name__} ({item!r:.80})"
        )
    return Record(rollout=rollout, row=number)


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


@contextmanager
def as_files(source: object, *, format: str, renames: Renames | None) -> Iterator[tuple[Any, str, Renames]]:
    """Files with the rollouts of `source`, their format and renames: its own, or a temporary one of ours."""
    if _is_path(source):
        yield source, format, renames or {}
        return
    records = read_source(source, format=format, renames=renames)
    order = {key: at for at, key in enumerate(dict.fromkeys(map(group_key, records)))}
    records.sort(key=lambda record: order[group_key(record)])  # each group together, by its first sample
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rollouts.parquet"
        rows = [ScoredRollout(rollout=record.rollout, components={}, reward=None) for record in records]
        with RecordWriter(path) as writer:
            writer.write(rows, steps=[record.step for record in records])
        yield path, "verl-lite", {}
