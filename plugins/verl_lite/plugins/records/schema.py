"""The one record schema. A record is self-contained: it can be scored again from itself alone.

Version 2: `token_versions` came with it. A reader reads its own version and every older one; a newer
file is refused with a message.
Values of any shape (data set columns, score details) are stored as JSON text, so that rows with
different keys share one Parquet schema and nothing vanishes or turns into a null.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verl_lite.plugins.rollout import Rollout

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["METADATA_KEY", "SCHEMA_VERSION", "Record", "StoredScore", "arrow_schema", "from_json", "to_json"]

SCHEMA_VERSION = 2
METADATA_KEY = b"verl_lite.schema_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredScore:
    """A component's score as it was recorded; the fields of Score and ComponentScore."""

    value: float | None
    outcome: str
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    weight: float = 1.0
    contribution: float | None = None
    latency_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A rollout with what was recorded about its scoring; `row` is its position in the file from 1.

    `reward` and `advantage` are None where the sample was dropped or never scored.
    """

    rollout: Rollout
    row: int = 0
    step: int | None = None
    reward: float | None = None
    advantage: float | None = None
    dropped_because: str = ""
    components: Mapping[str, StoredScore] = field(default_factory=dict)
    token_rewards: Sequence[float] = ()


def arrow_schema() -> "pa.Schema":
    """The Parquet schema of SCHEMA_VERSION; one row a rollout."""
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("extra_json", pa.string())])
    sampling = pa.struct(
        [
            ("temperature", pa.float64()),
            ("top_p", pa.float64()),
            ("top_k", pa.int32()),
            ("max_new_tokens", pa.int32()),
            ("seed", pa.int64()),
        ]
    )
    component = pa.struct(
        [
            ("name", pa.string()),
            ("value", pa.float64()),
            ("outcome", pa.string()),
            ("reason", pa.string()),
            ("details_json", pa.string()),
            ("steps_json", pa.string()),
            ("weight", pa.float64()),
            ("contribution", pa.float64()),
            ("latency_s", pa.float64()),
        ]
    )
    return pa.schema(
        [
            ("id", pa.string()),
            ("step", pa.int32()),
            ("group", pa.string()),
            ("sample_index", pa.int32()),
            ("policy_version", pa.int32()),
            ("prompt", pa.list_(message)),
            ("completion", pa.string()),
            ("reference", pa.string()),
            ("finish_reason", pa.string()),
            ("reward", pa.float64()),
            ("advantage", pa.float64()),
            ("dropped_because", pa.string()),
            ("components", pa.list_(component)),
            ("token_rewards", pa.list_(pa.float64())),
            ("prompt_ids", pa.list_(pa.int32())),
            ("completion_ids", pa.list_(pa.int32())),
            ("logprobs", pa.list_(pa.float64())),
            ("token_versions", pa.list_(pa.int32())),
            ("sampling", sampling),
            ("columns_json", pa.string()),
        ],
        metadata={METADATA_KEY: str(SCHEMA_VERSION).encode()},
    )


def to_json(value: object) -> str:
    """`value` as JSON text. What JSON cannot hold (a date, a set, an array) is written by its `str`."""
    return json.dumps(value, ensure_ascii=False, default=_plain, separators=(",", ":"))


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
