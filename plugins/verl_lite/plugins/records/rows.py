"""Convert a row of a file to a Record, and a Record to a scored rollout."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from verl_lite.plugins.records.schema import RESERVED, SCHEMA_VERSION, Record, StoredScore, from_json
from verl_lite.plugins.records.turns import are_segments, are_turns, read_segments, read_turns
from verl_lite.plugins.rollout import Message, Rollout, SamplerSettings, clean_text
from verl_lite.plugins.score import ComponentScore, Score, ScoredRollout

_NOT_KNOWN = SamplerSettings()
_SCORE_FIELDS = ("value", "outcome", "reason", "details", "steps")


def to_record(row: Any, number: int) -> Record:
    """The record in `row`, the file's `number`-th. Raises TypeError or ValueError with the reason."""
    completion = _completion(row)
    prompt = _messages(row.get("prompt"))
    identity = _text(row.get("id")) or f"row-{number}"
    rollout = Rollout(
        completion=clean_text(completion),
        prompt=prompt,
        reference=_text(row.get("reference")),
        columns=_columns(row),
        id=identity,
        group=_text(row.get("group")) or _group_of(prompt) or identity,
        sample_index=int(row.get("sample_index") or 0),
        finish_reason=_text(row.get("finish_reason")) or "",
        prompt_ids=row.get("prompt_ids") or (),
        completion_ids=row.get("completion_ids") or (),
        logprobs=row.get("logprobs") or (),
        policy_version=int(row.get("policy_version") or 0),
        token_versions=row.get("token_versions") or (),
        sampling=_sampling(row.get("sampling")),
        turns=read_turns(row.get("turns")) if are_turns(row.get("turns")) else (),
        segments=read_segments(row.get("segments")) if are_segments(row.get("segments")) else (),
    )
    return Record(
        rollout=rollout,
        row=number,
        step=row.get("step"),
        reward=row.get("reward"),
        advantage=row.get("advantage"),
        dropped_because=row.get("dropped_because") or "",
        components=_stored_scores(row.get("components")),
        token_rewards=row.get("token_rewards") or (),
    )


def _completion(row: object) -> str:
    if not isinstance(row, dict):
        raise TypeError(f"expected an object with a 'completion', got {type(row).__name__}")
    if "schema_version" in row and int(row["schema_version"]) > SCHEMA_VERSION:
        raise ValueError(
            f"record schema {row['schema_version']} is newer than {SCHEMA_VERSION}: upgrade verl-lite"
        )
    completion = row.get("completion")
    if not isinstance(completion, str):
        keys = ", ".join(sorted(map(str, row)))
        raise TypeError(f"'completion' must be text, got {type(completion).__name__}; this row has: {keys}")
    return completion


def own_key(row: Any, number: int) -> tuple[int | None, str]:
    """(step, group) of the record in `row`, as `to_record` gives it, without making the record."""
    group = _text(row.get("group")) or _group_of(_messages(row.get("prompt"))) or _text(row.get("id"))
    return row.get("step"), group or f"row-{number}"


def to_scored(record: Record) -> ScoredRollout:
    """The recorded scored rollout; it has no components if it was never scored."""
    components = {
        name: ComponentScore(
            score=Score.of({name: getattr(stored, name) for name in _SCORE_FIELDS}),
            weight=stored.weight,
            contribution=stored.contribution,
            latency_s=stored.latency_s,
        )
        for name, stored in record.components.items()
    }
    return ScoredRollout(
        rollout=record.rollout,
        components=components,
        reward=record.reward,
        dropped_because=record.dropped_because,
        token_rewards=record.token_rewards,
    )


def _columns(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data set's columns: of our own records, or all keys of a plain row that are not ours."""
    own = RESERVED - _columns_of_those_names(row)
    extra = {key: value for key, value in row.items() if key not in own}
    if "columns_json" not in row:
        if "reference" in row:
            extra["reference"] = row["reference"]
        given = row.get("columns")
        return {**given, **extra} if isinstance(given, dict) else extra
    known = {key: value for key, value in extra.items() if value is not None}
    if row["columns_json"] is not None:
        return {**known, **from_json(row["columns_json"])}
    return known if row.get("reference") is None else {**known, "reference": row["reference"]}


def _columns_of_those_names(row: Mapping[str, object]) -> set[str]:
    """The keys that version 4 took, where they are a data set's own columns."""
    ours = {"turns": are_turns, "segments": are_segments}
    return {name for name, is_ours in ours.items() if row.get(name) is not None and not is_ours(row[name])}


def _messages(prompt: object) -> tuple[Message, ...]:
    if prompt is None:
        return ()
    if isinstance(prompt, str):
        return ({"role": "user", "content": clean_text(prompt)},)
    if not isinstance(prompt, Sequence) or not all(isinstance(message, Mapping) for message in prompt):
        raise TypeError(f"'prompt' must be text or a list of messages, got {type(prompt).__name__}")
    return tuple(_message(message) for message in prompt)


def _message(given: Mapping[str, Any]) -> Message:
    message = dict(given)
    if "extra_json" in message:  # our own format: text in `content`, everything else as JSON
        extra = from_json(message.pop("extra_json"))
        if message.get("content") is None:
            message.pop("content", None)
        message.update(extra)
    if isinstance(message.get("content"), str):
        message["content"] = clean_text(message["content"])
    return cast(Message, message)


def _group_of(prompt: tuple[Message, ...]) -> str:
    if not prompt:
        return ""
    text = json.dumps([[m.get("role"), m.get("content")] for m in prompt], default=str)
    return "prompt-" + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _sampling(given: Mapping[str, Any] | None) -> SamplerSettings:
    if not given:
        return _NOT_KNOWN
    return SamplerSettings(**{key: value for key, value in given.items() if value is not None})


def _stored_scores(given: object) -> Mapping[str, StoredScore]:
    if not given or not isinstance(given, list):
        return {}
    return {
        item["name"]: StoredScore(
            value=item["value"],
            outcome=item["outcome"],
            reason=item.get("reason") or "",
            details=from_json(item.get("details_json")),
            steps=from_json(item.get("steps_json")) or (),
            weight=item.get("weight", 1.0),
            contribution=item.get("contribution"),
            latency_s=item.get("latency_s") or 0.0,
        )
        for item in given
    }


def _text(value: object) -> str | None:
    if value is None:
        return None
    return clean_text(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
