"""OpenRLHF's generation dumps: JSONL of {"input", "output", "reward"}.

As documented (the output of its batch inference); 0.11 no longer writes such files.
"""

from collections.abc import Iterable
from typing import Any

from verl_lite.lab.formats.rows import make_record
from verl_lite.plugins.records import Record

MARKS = ("input", "output", "reward")
_OURS = frozenset({"input", "output", "reward", "label", "step"})


def convert(row: Any, number: int) -> Iterable[Record]:
    """One record per row; `label`, if present, is the reference."""
    yield make_record(
        number,
        step=row.get("step"),
        prompt=row.get("input"),
        completion=row.get("output"),
        reference=row.get("label"),
        reward=row.get("reward"),
        columns={key: value for key, value in row.items() if key not in _OURS},
    )
