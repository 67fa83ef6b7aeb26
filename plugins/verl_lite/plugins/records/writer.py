"""Write scored rollouts to Parquet or JSONL, atomically."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING

from verl_lite.errors import DataError
from verl_lite.plugins.records.columns import ColumnTypes, infer_columns, split_columns
from verl_lite.plugins.records.schema import SCHEMA_VERSION, arrow_schema, to_json
from verl_lite.plugins.records.turns import turn_rows
from verl_lite.plugins.rollout import Message, Rollout
from verl_lite.plugins.score import ComponentScore, ScoredRollout

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_UNSCORED: Mapping[str, object] = {
    "reward": None,
    "dropped_because": "",
    "components": [],
    "token_rewards": [],
}


class RecordWriter:
    """Writes rows to a Parquet (`.parquet`) or JSONL (`.jsonl`) file. Use as a context manager.

    Rows go to a temporary file, renamed to `path` when the writer closes without an error, so a reader
    never sees half a file. `columns` are the data set's columns and their types; by default they are
    those of the first rows written. Raises DataError for another suffix.
    """

    def __init__(self, path: str | Path, *, columns: ColumnTypes | None = None) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".parquet", ".jsonl"):
            raise DataError(f"records go to a .parquet or .jsonl file, not {self.path.name!r}")
        self._aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._columns = columns
        self._parquet: pq.ParquetWriter | None = None
        self._lines: IO[str] | None = None
        self._is_closed = False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.suffix == ".jsonl":
            self._lines = self._aside.open("w", encoding="utf-8")

    def write(
        self,
        rows: Sequence[ScoredRollout],
        *,
        step: int | None = None,
        steps: Sequence[int | None] | None = None,
        advantages: Sequence[float | None] | None = None,
    ) -> None:
        """Append scored rollouts, dropped ones included, with one advantage per row if they are known.

        `step` is the training step of all rows; `steps` has one per row.
        """
        known = advantages if advantages is not None else [None] * len(rows)
        each = steps if steps is not None else [step] * len(rows)
        self._append(
            [
                {**_rollout_row(row.rollout), **_score_row(row), "step": row_step, "advantage": advantage}
                for row, row_step, advantage in zip(rows, each, known, strict=True)
            ],
            [row.rollout for row in rows],
        )

    def write_rollouts(self, rollouts: Sequence[Rollout], *, step: int | None = None) -> None:
        """Append rollouts that were not scored."""
        rows = [{**_rollout_row(r), **_UNSCORED, "step": step, "advantage": None} for r in rollouts]
        self._append(rows, rollouts)

    def _append(self, rows: list[dict[str, object]], rollouts: Sequence[Rollout]) -> None:
        if self._is_closed:
            raise ValueError(f"the record writer of {self.path} is closed")
        if self._lines is not None:
            for row, rollout in zip(rows, rollouts, strict=True):
                line = {"schema_version": SCHEMA_VERSION, **row, **split_columns(rollout, None)}
                self._lines.write(to_json(line) + "\n")
            return
        import pyarrow as pa

        writer, types = self._open_parquet(rollouts)
        typed = [
            {**row, **split_columns(rollout, types)} for row, rollout in zip(rows, rollouts, strict=True)
        ]
        writer.write_table(pa.Table.from_pylist(typed, schema=writer.schema))

    def _open_parquet(self, first: Sequence[Rollout]) -> "tuple[pq.ParquetWriter, ColumnTypes]":
        """The writer, whose columns are those of the first rollouts if nobody gave them."""
        if self._columns is None:
            self._columns = infer_columns(rollout.columns for rollout in first)
        if self._parquet is None:
            import pyarrow.parquet as parquet

            self._parquet = parquet.ParquetWriter(
                self._aside, arrow_schema(self._columns), compression="zstd"
            )
        return self._parquet, self._columns

    def close(self, *, keep: bool = True) -> None:
        """Finish the file and rename it to `path`; with `keep=False` delete it."""
        if self._is_closed:
            return
        self._is_closed = True
        if keep and self._lines is None:
            self._open_parquet(())
        for writer in (self._parquet, self._lines):
            if writer is not None:
                writer.close()
        if keep:
            os.replace(self._aside, self.path)
        else:
            self._aside.unlink(missing_ok=True)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(keep=kind is None)


def join_record_files(parts: Sequence[Path], path: Path) -> None:
    """Concatenate record files with the same columns into `path`, atomically."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        schema = parquet.read_schema(parts[0]) if parts else arrow_schema()
        with parquet.ParquetWriter(aside, schema, compression="zstd") as writer:
            for part in parts:
                with parquet.ParquetFile(part) as file:
                    for index in range(file.num_row_groups):
                        writer.write_table(file.read_row_group(index))
    else:
        with aside.open("wb") as whole:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole)
    os.replace(aside, path)


def _rollout_row(rollout: Rollout) -> dict[str, object]:
    return {
        "id": rollout.id,
        "group": rollout.group,
        "sample_index": rollout.sample_index,
        "policy_version": rollout.policy_version,
        "prompt": [_message_row(message) for message in rollout.prompt],
        "completion": rollout.completion,
        "reference": rollout.reference,
        "finish_reason": rollout.finish_reason,
        "prompt_ids": list(rollout.prompt_ids),
        "completion_ids": list(rollout.completion_ids),
        "logprobs": list(rollout.logprobs),
        "token_versions": list(rollout.token_versions),
        "sampling": asdict(rollout.sampling),
        **turn_rows(rollout),
    }


def _message_row(message: Message) -> dict[str, object]:
    """Plain text in its own column; everything else in a message (tool calls, parts, null) as JSON."""
    content = message.get("content")
    extra = {key: value for key, value in message.items() if key not in ("role", "content")}
    if not isinstance(content, str) and "content" in message:
        extra["content"] = content
    return {
        "role": message.get("role"),
        "content": content if isinstance(content, str) else None,
        "extra_json": to_json(extra) if extra else None,
    }


def _score_row(row: ScoredRollout) -> dict[str, object]:
    return {
        "reward": row.reward,
        "dropped_because": row.dropped_because,
        "components": [_component_row(name, part) for name, part in row.components.items()],
        "token_rewards": list(row.token_rewards),
    }


def _component_row(name: str, part: ComponentScore) -> dict[str, object]:
    return {
        "name": name,
        "value": part.score.value,
        "outcome": str(part.score.outcome),
        "reason": part.score.reason,
        "details_json": to_json(part.score.details),
        "steps_json": to_json([asdict(step) for step in part.score.steps]) if part.score.steps else None,
        "weight": part.weight,
        "contribution": part.contribution,
        "latency_s": part.latency_s,
    }
