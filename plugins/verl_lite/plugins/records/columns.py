"""The data set's columns as columns of a file: typed where all values are of one type, JSON where not.

Nothing is lost: what has no column of its own (another type than the first rows had, null, a name that
the record itself uses) goes to `columns_json`.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from verl_lite.plugins.records.schema import RESERVED, to_json
from verl_lite.plugins.rollout import Rollout

if TYPE_CHECKING:
    import pyarrow as pa

ColumnTypes = Mapping[str, "pa.DataType"]


def infer_columns(rows: Iterable[Mapping[str, object]]) -> dict[str, "pa.DataType"]:
    """The columns whose values in `rows` are all of one type, with that type.

    >>> {n: str(t) for n, t in infer_columns([{"a": 1, "b": "x", "c": [1]}, {"a": 2, "b": 3}]).items()}
    {'a': 'int64', 'c': 'list<element: int64>'}
    """
    import pyarrow as pa

    found: dict[str, pa.DataType | None] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None and isinstance(name, str) and name not in RESERVED:
                kind = _type_of(value)
                found[name] = kind if found.get(name, kind) == kind else None
    return {name: kind for name, kind in found.items() if kind is not None}


def split_columns(rollout: Rollout, types: ColumnTypes | None) -> dict[str, object]:
    """The rollout's columns as a row of a file; without `types` (JSONL), values of any type have their own.

    `columns_json` is null if nothing is left over; then the column `reference` is the rollout's reference.
    """
    own: dict[str, object] = {}
    rest: dict[str, object] = {}
    for name, value in rollout.columns.items():
        fits = name not in RESERVED if types is None else name in types and _type_of(value) == types[name]
        if fits and value is not None and isinstance(name, str):
            own[name] = value
        else:
            rest[name] = value
    implied = {} if rollout.reference is None else {"reference": rollout.reference}
    return {**own, "columns_json": None if rest == implied else to_json(rest)}


@cache
def _scalar_types() -> "dict[type, pa.DataType]":
    import pyarrow as pa

    return {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def _type_of(value: object) -> "pa.DataType | None":
    """The Arrow type that gives the value back as it is; None where none does."""
    import pyarrow as pa

    kind = _scalar_types().get(type(value))
    if kind is not None:
        return kind if type(value) is not int or -(2**63) <= value < 2**63 else None
    if isinstance(value, list) and value:
        inner = [_type_of(item) for item in value]
        return pa.list_(inner[0]) if inner[0] is not None and all(t == inner[0] for t in inner) else None
    if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        fields = {key: _type_of(item) for key, item in value.items()}
        return None if None in fields.values() else pa.struct(fields)
    return None
