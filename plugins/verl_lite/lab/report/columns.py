"""The browser's rollouts, column by column: small to store, fast to filter."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from verl_lite.lab.check.labels import truth
from verl_lite.plugins import Rollout
from verl_lite.plugins.records import Record

_LABELS = ("label", "is_correct", "correct")


class _Table:
    """Stores each repeated text once; rows keep its index."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def index(self, text: str) -> int:
        return self._places.setdefault(text, len(self._places))

    @property
    def texts(self) -> list[str]:
        return list(self._places)


def rollout_columns(records: Sequence[Record], label: str | None) -> dict[str, Any]:
    texts = _Table()
    names = list(dict.fromkeys(name for record in records for name in record.components))
    return {
        "id": [record.rollout.id for record in records],
        "group": [record.rollout.group for record in records],
        "step": [record.step for record in records],
        "reward": [record.reward for record in records],
        "advantage": [record.advantage for record in records],
        "dropped": [texts.index(record.dropped_because) for record in records],
        "finish": [texts.index(record.rollout.finish_reason) for record in records],
        "prompt": [texts.index(record.rollout.prompt_text) for record in records],
        "completion": [record.rollout.completion for record in records],
        "turns": [_turns(record.rollout, texts) for record in records],
        "reference": [texts.index(record.rollout.reference or "") for record in records],
        "label": [find_label(record, label) for record in records],
        "components": {name: _component_columns(name, records, texts) for name in names},
        "texts": texts.texts,
    }


def _turns(rollout: Rollout, texts: _Table) -> list[list[Any]]:
    """Per turn: role, text, tool calls as JSON, the tool's name, outcome, seconds, number of tokens.

    Texts but the message itself are indices of `texts`. Empty for a single completion.
    """
    return [
        [
            texts.index(turn.role),
            turn.content,
            texts.index(json.dumps(list(turn.tool_calls), ensure_ascii=False) if turn.tool_calls else ""),
            texts.index(turn.name),
            texts.index(turn.outcome),
            round(turn.seconds, 4),
            turn.end - turn.start,
        ]
        for turn in rollout.turns
    ]


def _component_columns(name: str, records: Sequence[Record], texts: _Table) -> dict[str, list[Any]]:
    scores = [record.components.get(name) for record in records]
    return {
        "value": [score.value if score else None for score in scores],
        "outcome": [texts.index(score.outcome if score else "") for score in scores],
        "reason": [texts.index(score.reason if score else "") for score in scores],
        "weight": [score.weight if score else None for score in scores],
        "contribution": [score.contribution if score else None for score in scores],
        "latency": [round(score.latency_s, 6) if score else None for score in scores],
        "extracted": [texts.index(_extracted(score.details) if score else "") for score in scores],
        "details": [
            texts.index(json.dumps(dict(score.details)) if score and score.details else "")
            for score in scores
        ],
    }


def _extracted(details: Mapping[str, Any]) -> str:
    found = details.get("extracted")
    return found if isinstance(found, str) else ""


def find_label(record: Record, column: str | None) -> bool | None:
    """The row's label from `column`, or from the first usual label column; None where there is none."""
    columns = record.rollout.columns
    found = [truth(columns[name]) for name in ((column,) if column else _LABELS) if name in columns]
    return next((label for label in found if label is not None), None)
