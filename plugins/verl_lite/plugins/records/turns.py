"""The turns and segments of a trajectory as rows of a record, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, cast, get_args

from verl_lite.plugins.records.schema import from_json, to_json
from verl_lite.plugins.rollout import Rollout, Segment, Turn, TurnOutcome, clean_text, content_text

_OUTCOMES = frozenset(get_args(TurnOutcome))
_EXTRA = ("tool_calls", "tool_call_id", "name")


def turn_rows(rollout: Rollout) -> dict[str, list[dict[str, object]]]:
    """The keys `turns` and `segments` of a record."""
    return {
        "turns": [_turn_row(turn) for turn in rollout.turns],
        "segments": [
            {name: list(value) for name, value in asdict(segment).items()} for segment in rollout.segments
        ],
    }


def _turn_row(turn: Turn) -> dict[str, object]:
    extra = {name: value for name in _EXTRA if (value := getattr(turn, name))}
    return {
        "role": turn.role,
        "content": turn.content,
        "extra_json": to_json(extra) if extra else None,
        "start": turn.start,
        "end": turn.end,
        "seconds": turn.seconds,
        "outcome": turn.outcome,
    }


def are_turns(value: object) -> bool:
    """Whether a row's `turns` are ours: messages. A data set's own column of that name is something else."""
    return isinstance(value, list) and all(isinstance(item, Mapping) and "role" in item for item in value)


def are_segments(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(i, Mapping) and "completion_ids" in i for i in value)


def read_turns(given: Sequence[Mapping[str, Any]] | None) -> tuple[Turn, ...]:
    """Turns of a record, or chat messages. Raises ValueError for an outcome that does not exist."""
    return tuple(_turn(item) for item in given or ())


def _turn(given: Mapping[str, Any]) -> Turn:
    item = {**given, **from_json(given.get("extra_json"))}
    outcome = item.get("outcome") or "ok"
    if outcome not in _OUTCOMES:
        raise ValueError(f"turn outcome {outcome!r}: expected one of {', '.join(sorted(_OUTCOMES))}")
    return Turn(
        role=str(item["role"]),
        content=clean_text(content_text(item.get("content"))),
        tool_calls=tuple(item.get("tool_calls") or ()),
        tool_call_id=str(item.get("tool_call_id") or ""),
        name=str(item.get("name") or ""),
        start=int(item.get("start") or 0),
        end=int(item.get("end") or 0),
        seconds=float(item.get("seconds") or 0.0),
        outcome=cast(TurnOutcome, outcome),
    )


def read_segments(given: Sequence[Mapping[str, Any]] | None) -> tuple[Segment, ...]:
    names = [item.name for item in fields(Segment)]
    return tuple(Segment(**{name: tuple(item.get(name) or ()) for name in names}) for item in given or ())
