"""Shared by all formats: build a record from the fields of a dump."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from verl_lite.plugins.records import Record, StoredScore, to_record


def make_record(
    number: int,
    *,
    scores: Mapping[str, Any] | None = None,
    reward: Any = None,
    advantage: Any = None,
    **row: Any,
) -> Record:
    """The record of a row with our keys; `scores` are the components the trainer recorded.

    Their weights are unknown: each has weight 1.0 and no contribution.
    """
    record = to_record(without_none(row), number)
    return Record(
        rollout=record.rollout,
        row=number,
        step=record.step,
        reward=number_or_none(reward),
        advantage=number_or_none(advantage),
        components={name: _stored_score(value) for name, value in (scores or {}).items()},
    )


def _stored_score(recorded: Any) -> StoredScore:
    value = number_or_none(recorded)
    return StoredScore(value=value, outcome="abstain" if value is None else "ok")


def number_or_none(value: Any) -> float | None:
    """A finite number as a float; None for everything else (null, nan, text)."""
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return float(value)
    return None


def is_trajectory(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a whole conversation has tools in it, so that its replies were sampled one after another."""
    return any(message.get("tool_calls") or message.get("role") == "tool" for message in messages)


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}
