"""verl's rollout dumps: one JSONL file per step, from `trainer.rollout_data_dir` or validation_data_dir.

    {"input", "output", "gts", "score", "step", and every key of the reward's dict}
As written by verl 0.9.1 (`RayPPOTrainer._write_generations`). Older files lack `gts`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from verl_lite.lab.formats.rows import make_record, number_or_none
from verl_lite.plugins.records import Record

KEYS = "input, output, score, step"
_OURS = frozenset({"input", "output", "gts", "score", "step", "uid", "request_id"})


def matches(row: Mapping[str, Any]) -> bool:
    return {"input", "output", "score", "step"} <= row.keys()


def convert(row: Any, number: int) -> Iterable[Record]:
    """One record per row. Numbers of the reward's dict become recorded components, the rest columns."""
    others = {key: value for key, value in row.items() if key not in _OURS}
    scores = {  # a non-finite float is a component without a value
        key: value
        for key, value in others.items()
        if isinstance(value, float) or number_or_none(value) is not None
    }
    yield make_record(
        number,
        id=row.get("request_id"),
        group=row.get("uid"),
        step=row.get("step"),
        prompt=row.get("input"),
        completion=row.get("output"),
        reference=row.get("gts"),
        reward=row.get("score"),
        scores=scores,
        columns={**{k: v for k, v in others.items() if k not in scores}, "ground_truth": row.get("gts")},
    )
