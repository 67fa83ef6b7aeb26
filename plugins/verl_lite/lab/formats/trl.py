"""TRL's completions tables: `completions/completions_*.parquet` of a run with `log_completions=True`.

    step, prompt, completion (text or messages), one column per reward function, one per key logged
    with log_extra, advantage
As written by TRL 1.16 (`GRPOTrainer.log`). The table lacks the total reward (TRL weights the columns by
`reward_weights`, which it does not record) and the data set's columns: a reward that needs a
reference has to log it (`log_extra("reference", ...)`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from verl_lite.lab.formats.rows import make_record, number_or_none, spoken
from verl_lite.plugins.records import Record

MARKS = ("step", "prompt", "completion", "advantage")
_OURS = frozenset({"step", "prompt", "completion", "advantage", "reference"})


def convert(row: Any, number: int) -> Iterable[Record]:
    """One record per row: numbers become recorded components, other columns stay columns."""
    others = {key: value for key, value in row.items() if key not in _OURS}
    columns = {k: v for k, v in others.items() if not (v is None or isinstance(v, (bool, int, float)))}
    scores = {key: value for key, value in others.items() if key not in columns}
    yield make_record(
        number,
        step=row.get("step"),
        **spoken(row.get("prompt"), row.get("completion")),
        reference=row.get("reference"),
        reward=_only(scores),
        advantage=row.get("advantage"),
        scores=scores,
        columns=columns,
    )


def _only(scores: Mapping[str, Any]) -> float | None:
    """The reward if it is unambiguous: the value of the only component."""
    return number_or_none(next(iter(scores.values()))) if len(scores) == 1 else None
