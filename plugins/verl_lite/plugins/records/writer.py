"""Write scored rollouts to Parquet or JSONL, atomically."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from verl_lite.errors import DataError
from verl_lite.plugins.records.schema import SCHEMA_VERSION, arrow_schema, to_json
from verl_lite.plugins.rollout import Message, Rollout
from verl_lite.plugins.score import ComponentScore, ScoredRollout

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_UNSCORED: Mapping[str, Any] = {"reward": None, "dropped_because": "", "components": [], "token_rewards": []}


class RecordWriter:
    """Writes rows to a Parquet (`.parquet`) or JSONL (`.jsonl`) file. Use as a context manager.

    Rows go to a temporary file, renamed to `path` when the writer closes without an error, so a reader
    never sees half a file. Raises DataError for another suffix.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".parquet", ".jsonl"):
            raise DataError(f"records go to a .parquet or .jsonl file, not {self.path.name!r}")
        self._aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._parquet: pq.ParquetWriter | None = None
        self._lines: IO[str] | None = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.suffix == ".parquet":
            import pyarrow.parquet as parquet

            self._schema = arrow_schema()
            self._parquet = parquet.ParquetWriter(self._aside, self._schema, compression="zstd")
        else:
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
            ]
        )

    def write_rollouts(self, rollouts: Sequence[Rollout], *, step: int | None = None) -> None:
        """Append rollouts that were not scored."""
        self._append([{**_rollout_row(r), **_UNSCORED, "step": step, "advantage": None} for r in rollouts])

    def _append(self, rows: list[dict[str, Any]]) -> None:
        if self._parquet is not None:
            import pyarrow as pa

            self._parquet.write_table(pa.Table.from_pylist(rows, schema=self._schema))
        elif self._lines is not None:
            for row in rows:
                self._lines.write(to_json({"schema_version": SCHEMA_VERSION, **row}) + "\n")
        else:
            raise ValueError(f"the record writer of {self.path} is closed")

    def close(self, *, keep: bool = True) -> None:
        """Finish the file and rename it to `path`; with `keep=False` delete it."""
        writer = self._parquet or self._lines
        if writer is None:
            return
        writer.close()
        self._parquet = self._lines = None
        if keep:
            os.replace(self._aside, self.path)
        else:
            self._aside.unlink(missing_ok=True)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(keep=kind is None)


def join_record_files(parts: Sequence[Path], path: Path) -> None:
    """Concatenate record files of one format into `path`, atomically."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        with parquet.ParquetWriter(aside, arrow_schema(), compression="zstd") as writer:
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


def _rollout_row(rollout: Rollout) -> dict[str, Any]:
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
        "columns_json": to_json(rollout.columns),
    }


def _message_row(message: Message) -> dict[str, Any]:
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


def _score_row(row: ScoredRollout) -> dict[str, Any]:
    return {
        "reward": row.reward,
        "dropped_because": row.dropped_because,
        "components": [_component_row(name, part) for name, part in row.components.items()],
        "token_rewards": list(row.token_rewards),
    }


def _component_row(name: str, part: ComponentScore) -> dict[str, Any]:
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
