"""open-instruct's traces: one JSONL line per training step, with a list per key.

    {"decoded_responses": [...], "queries": [...], "ground_truths": [...], "scores": [...],
     "finish_reasons": [...], "training_step": N, ...}
As documented (`grpo_fast.py --save_traces`). Lists as long as `decoded_responses` have one entry per
sample; everything else is a column of every sample.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from verl_lite.lab.formats.rows import make_record
from verl_lite.plugins.records import Record

_OURS = frozenset(
    {"decoded_responses", "decoded_queries", "queries", "ground_truths", "scores", "finish_reasons",
     "training_step", "responses", "advantages", "masks"}
)  # fmt: skip


def convert(row: Any, number: int) -> Iterable[Record]:
    """One record per sample of the line. Raises ValueError if the lists differ in length."""
    responses = row["decoded_responses"]
    if not isinstance(responses, list):
        raise TypeError(f"'decoded_responses' must be a list, got {type(responses).__name__}")
    parts = {
        key: _list(row, key, len(responses))
        for key in _OURS
        if row.get(key) is not None and key != "training_step"
    }
    for sample, response in enumerate(responses):
        own = {key: values[sample] for key, values in parts.items()}
        finish = own.get("finish_reasons")
        yield make_record(
            number,
            id=f"row-{number}/{sample}",
            step=row.get("training_step"),
            prompt=_prompt(own),
            completion=response,
            reference=_single(own.get("ground_truths")),
            finish_reason=finish if finish in ("stop", "length") else None,
            completion_ids=_numbers(own.get("responses")),
            reward=own.get("scores"),
            advantage=own.get("advantages"),
            columns=_columns(row, sample, len(responses), own),
        )


def _list(row: Mapping[str, Any], key: str, length: int) -> list[Any]:
    values = row[key]
    if not isinstance(values, list) or len(values) != length:
        got = f"{len(values)} entries" if isinstance(values, list) else type(values).__name__
        raise ValueError(f"{key!r} has {got}, 'decoded_responses' has {length}")
    return values


def _prompt(own: Mapping[str, Any]) -> Any:
    query = own.get("decoded_queries", own.get("queries"))
    return query if isinstance(query, str) or _is_messages(query) else None  # token ids: no text to show


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _single(truth: Any) -> Any:
    return truth[0] if isinstance(truth, list) and len(truth) == 1 else truth


def _numbers(values: Any) -> Any:
    return values if isinstance(values, list) and all(isinstance(item, int) for item in values) else None


def _columns(row: Mapping[str, Any], sample: int, length: int, own: Mapping[str, Any]) -> dict[str, Any]:
    columns = {"ground_truths": own.get("ground_truths")}
    for key, value in row.items():
        if key not in _OURS:
            columns[key] = value[sample] if isinstance(value, list) and len(value) == length else value
    source = columns.get("datasets", columns.get("dataset"))
    return columns if source is None else {"data_source": _single(source), **columns}
