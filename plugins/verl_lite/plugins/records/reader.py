"""Read rollouts from Parquet or JSONL: our own records of any version, or any file with a `completion`.

A plain file needs only what the rewards read: `completion`, usually `prompt` (text or messages) and
`reference`; every other key becomes a column of the rollout. Rows of one prompt form a group unless
`group` says otherwise.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from verl_lite.errors import DataError
from verl_lite.plugins.records.schema import METADATA_KEY, SCHEMA_VERSION, Record, StoredScore, from_json
from verl_lite.plugins.rollout import Message, Rollout, SamplerSettings

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["BadRow", "Shard", "read_records", "shard_records"]

_BATCH_ROWS = 2048
_RESERVED = frozenset(
    {
        "schema_version", "id", "step", "group", "sample_index", "policy_version", "prompt", "completion",
        "finish_reason", "reward", "advantage", "dropped_because", "components", "token_rewards",
        "prompt_ids", "completion_ids", "logprobs", "sampling", "columns", "columns_json",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that cannot be read: its position from 1 (a JSONL line number), why, and its raw text."""

    row: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A stretch of a record file that splits no group: `num_rows` rows from `first_row` (from 1) on.

    It lies between `position` and `end`: byte offsets in JSONL, row-group indices in Parquet.
    """

    position: int
    end: int
    first_row: int
    num_rows: int


def read_records(
    path: str | Path,
    *,
    on_bad_row: Callable[[BadRow], None] | None = None,
    shard: Shard | None = None,
) -> Iterator[Record]:
    """Stream the records of `path` (or of one shard of it) in file order.

    A row that cannot be read goes to `on_bad_row` and reading goes on; without it the first one
    raises DataError with its position. Raises DataError for a file that is missing, empty, no
    Parquet or JSONL, truncated, or written with a newer schema.
    """
    path = check_record_file(path)
    rows = _parquet_rows(path, shard) if path.suffix == ".parquet" else _json_rows(path, shard)
    empty = True
    for number, row in rows:
        empty = False
        try:
            record = _record(json.loads(row) if isinstance(row, str) else row, number)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            bad = BadRow(row=number, reason=_reason(error), text=row if isinstance(row, str) else repr(row))
            if on_bad_row is None:
                raise DataError(f"{path}, row {number}: {bad.reason}") from None
            on_bad_row(bad)
        else:
            yield record
    if empty and shard is None:
        raise DataError(f"{path} holds no rollouts")


def check_record_file(path: str | Path) -> Path:
    """The path of a file whose suffix can be read; raises DataError otherwise."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no rollout file at {path}")
    if path.suffix not in (".parquet", ".jsonl", ".ndjson", ".json"):
        raise DataError(f"{path}: expected a .parquet or .jsonl file, got the suffix {path.suffix!r}")
    return path


def shard_records(path: str | Path, *, rows_per_shard: int) -> list[Shard]:
    """Cut a record file into shards of at least `rows_per_shard` rows, never inside a group."""
    path = check_record_file(path)
    cut = _parquet_shards if path.suffix == ".parquet" else _json_shards
    return list(cut(path, rows_per_shard))


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg} at character {error.pos + 1})"
    return str(error)


def _json_rows(path: Path, shard: Shard | None) -> Iterator[tuple[int, object]]:
    first, last = (shard.first_row, shard.first_row + shard.num_rows) if shard else (1, 0)
    with path.open("rb") as file:
        file.seek(shard.position if shard else 0)
        for number, line in enumerate(file, start=first):
            if number == last:
                return
            text = line.decode("utf-8", errors="replace").strip("\ufeff \t\r\n")
            if text:
                yield number, text


@contextmanager
def _parquet_file(path: Path) -> "Iterator[pq.ParquetFile]":
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            version = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
            if version is not None:
                _check_version(int(version), path)
            yield file
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet (truncated or damaged?): {error}") from None


def _parquet_shards(path: Path, rows_per_shard: int) -> Iterator[Shard]:
    with _parquet_file(path) as file:
        begin, first, count = 0, 1, 0
        for index in range(file.num_row_groups):
            size = file.metadata.row_group(index).num_rows
            if count >= rows_per_shard and _group_of_row(file, index - 1, -1) != _group_of_row(
                file, index, 0
            ):
                yield Shard(position=begin, end=index, first_row=first, num_rows=count)
                begin, first, count = index, first + count, 0
            count += size
        if count:
            yield Shard(position=begin, end=file.num_row_groups, first_row=first, num_rows=count)


def _group_of_row(file: "pq.ParquetFile", row_group: int, row: int) -> object:
    """What tells the groups of two rows apart; only the columns for that are read."""
    names = set(file.schema_arrow.names)
    wanted = ["step", "group"] if "group" in names else ["step", "prompt"]
    table = file.read_row_group(row_group, columns=[name for name in wanted if name in names])
    return [column[row].as_py() for column in table.columns] or object()


def _json_shards(path: Path, rows_per_shard: int) -> Iterator[Shard]:
    with path.open("rb") as file:
        begin = offset = 0
        first, previous = 1, b""
        for number, line in enumerate(file, start=1):
            if number - first >= rows_per_shard and _group_of_line(previous) != _group_of_line(line):
                yield Shard(position=begin, end=offset, first_row=first, num_rows=number - first)
                begin, first = offset, number
            offset += len(line)
            previous = line
        if offset > begin:
            yield Shard(position=begin, end=offset, first_row=first, num_rows=number + 1 - first)


def _group_of_line(line: bytes) -> object:
    try:
        record = _record(json.loads(line), 0)
    except (ValueError, TypeError, KeyError, RecursionError):
        return object()  # a bad line belongs to no group
    return record.step, record.rollout.group


def _parquet_rows(path: Path, shard: Shard | None) -> Iterator[tuple[int, object]]:
    number = shard.first_row if shard else 1
    with _parquet_file(path) as file:
        groups = range(shard.position, shard.end) if shard else range(file.num_row_groups)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups):
            names = batch.schema.names
            columns = [column.to_pylist() for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield number, dict(zip(names, values, strict=True))
                number += 1


def _check_version(version: int, path: Path) -> None:
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{path} was written with record schema {version}, this verl-lite reads up to {SCHEMA_VERSION}: "
            "upgrade verl-lite"
        )


def _record(row: Any, number: int) -> Record:
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
    prompt = _messages(row.get("prompt"))
    identity = _text(row.get("id")) or f"row-{number}"
    rollout = Rollout(
        completion=_clean(completion),
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
        sampling=_sampling(row.get("sampling")),
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


def _columns(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Every data set column: those recorded as JSON, or all keys of a plain row that are not ours."""
    if row.get("columns_json") is not None:
        return dict(from_json(row["columns_json"]))
    given = row.get("columns")
    extra = {key: value for key, value in row.items() if key not in _RESERVED}
    return {**given, **extra} if isinstance(given, dict) else extra


def _messages(prompt: object) -> tuple[Message, ...]:
    if prompt is None:
        return ()
    if isinstance(prompt, str):
        return (Message(role="user", content=_clean(prompt)),)
    if not isinstance(prompt, Sequence) or not all(isinstance(message, Mapping) for message in prompt):
        raise TypeError(f"'prompt' must be text or a list of messages, got {type(prompt).__name__}")
    return tuple(_message(message) for message in prompt)


def _message(given: Mapping[str, Any]) -> Message:
    message = dict(given)
    if "extra_json" in message:  # one of our own: text in `content`, everything else as JSON
        extra = from_json(message.pop("extra_json"))
        if message.get("content") is None:
            message.pop("content", None)
        message.update(extra)
    if isinstance(message.get("content"), str):
        message["content"] = _clean(message["content"])
    return cast(Message, message)


def _group_of(prompt: tuple[Message, ...]) -> str:
    if not prompt:
        return ""
    text = json.dumps([[m.get("role"), m.get("content")] for m in prompt], default=str)
    return "prompt-" + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _sampling(given: Mapping[str, Any] | None) -> SamplerSettings:
    if not given:
        return SamplerSettings()
    return SamplerSettings(**{key: value for key, value in given.items() if value is not None})


def _stored_scores(given: object) -> Mapping[str, StoredScore]:
    if not given or not isinstance(given, list):
        return {}
    return {item["name"]: _stored_score(item) for item in given}


def _stored_score(item: Mapping[str, Any]) -> StoredScore:
    return StoredScore(
        value=item["value"],
        outcome=item["outcome"],
        reason=item.get("reason") or "",
        details=from_json(item.get("details_json")),
        steps=from_json(item.get("steps_json")) or (),
        weight=item.get("weight", 1.0),
        contribution=item.get("contribution"),
        latency_s=item.get("latency_s") or 0.0,
    )


def _text(value: object) -> str | None:
    if value is None:
        return None
    return _clean(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _clean(text: str) -> str:
    """`text` with lone surrogates replaced by U+FFFD: they cannot be encoded, hashed or stored."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")
    return text
