"""The record schema. A record is self-contained: it can be scored again from itself alone.

Version 2 added `token_versions`; version 3 gives the data set's columns columns of their own (columns.py),
where they were all in `columns_json` before; version 4 added `turns` and `segments`. A reader reads its
own version and all older ones, and refuses newer ones. Score details have any shape and are stored as JSON
text.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verl_lite.plugins.fast_init import fast_init
from verl_lite.plugins.rollout import Rollout, clean_text

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 4
RESERVED = frozenset(
    {
        "schema_version", "id", "step", "group", "sample_index", "policy_version", "prompt", "completion",
        "reference", "finish_reason", "reward", "advantage", "dropped_because", "components",
        "token_rewards", "prompt_ids", "completion_ids", "logprobs", "token_versions", "sampling",
        "turns", "segments", "columns", "columns_json",
    }
)  # fmt: skip
METADATA_KEY = b"verl_lite.schema_version"
MAX_DEPTH = 100  # of a value written as JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredScore:
    """A recorded component score: the fields of Score and ComponentScore."""

    value: float | None
    outcome: str
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    weight: float = 1.0
    contribution: float | None = None
    latency_s: float = 0.0


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A rollout with its recorded scores; `row` is its position in the file, from 1.

    `reward` and `advantage` are None if the sample was dropped or never scored.
    """

    rollout: Rollout
    row: int = 0
    step: int | None = None
    reward: float | None = None
    advantage: float | None = None
    dropped_because: str = ""
    components: Mapping[str, StoredScore] = field(default_factory=dict)
    token_rewards: Sequence[float] = ()


def arrow_schema(more: "Mapping[str, pa.DataType] | None" = None) -> "pa.Schema":
    """The Parquet schema of SCHEMA_VERSION, one row per rollout, with `more` columns of the data set."""
    import pyarrow as pa

    text, number, integer = pa.string(), pa.float64(), pa.int32()
    message = {"role": text, "content": text, "extra_json": text}
    sampling = {"temperature": number, "top_p": number, "top_k": integer, "max_new_tokens": integer}
    sampling["seed"] = pa.int64()
    component = {"name": text, "value": number, "outcome": text, "reason": text, "details_json": text}
    component |= {"steps_json": text, "weight": number, "contribution": number, "latency_s": number}
    turn = {**message, "start": integer, "end": integer, "seconds": number, "outcome": text}
    segment = {name: pa.list_(integer) for name in ("prompt_ids", "completion_ids", "sampled_mask", "turns")}
    segment["logprobs"] = pa.list_(number)
    columns = {
        "id": text,
        "step": integer,
        "group": text,
        "sample_index": integer,
        "policy_version": integer,
        "prompt": pa.list_(pa.struct(message)),
        "completion": text,
        "reference": text,
        "finish_reason": text,
        "reward": number,
        "advantage": number,
        "dropped_because": text,
        "components": pa.list_(pa.struct(component)),
        "token_rewards": pa.list_(number),
        "prompt_ids": pa.list_(integer),
        "completion_ids": pa.list_(integer),
        "logprobs": pa.list_(number),
        "token_versions": pa.list_(integer),
        "sampling": pa.struct(sampling),
        "turns": pa.list_(pa.struct(turn)),
        "segments": pa.list_(pa.struct(segment)),
        "columns_json": text,
    }
    return pa.schema({**columns, **(more or {})}, metadata={METADATA_KEY: str(SCHEMA_VERSION).encode()})


def to_json(value: object) -> str:
    """`value` as JSON text. Arrays and sets become lists; other types JSON lacks are written as `str`.

    So are keys, where they are no text; a value within itself, or deeper than 100, is "...". Lone
    surrogates are U+FFFD.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, default=_plain, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):  # what a plugin gives as details may be anything
        text = json.dumps(_readable(value, ()), ensure_ascii=False, separators=(",", ":"))
    return clean_text(text)


def _readable(value: object, above: tuple[object, ...]) -> object:
    """`value` of types that JSON has; `above` are those that it is in."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if len(above) == MAX_DEPTH or any(value is one for one in above):
        return "..."
    if isinstance(value, Mapping):
        return {str(key): _readable(one, (*above, value)) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(one, (*above, value)) for one in value]
    return _readable(_plain(value), (*above, value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    return str(value)


def from_json(text: str | None) -> Any:
    return json.loads(text) if text else {}
