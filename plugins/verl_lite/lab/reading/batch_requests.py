"""The Batch API's output has no prompts; its input has: joined by `custom_id` where both are given."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from verl_lite.errors import DataError
from verl_lite.lab.reading.record_file import RecordFile
from verl_lite.plugins.records import to_json

REQUESTS, RESPONSES = "openai-batch-input", "openai-batch"
_OF_THE_CALL = ("custom_id", "method", "url", "body")


def with_requests(files: Sequence[RecordFile], folder: Path) -> list[RecordFile]:
    """`files` with every response beside its request, in files made in `folder`, and without the requests.

    Raises DataError for responses whose request is in none of the input files.
    """
    requests = [file for file in files if file.format == REQUESTS]
    if not requests or all(file.format != RESPONSES for file in files):
        return list(files)
    places = {row["custom_id"]: (file, at) for file in requests for at, row in _rows(file.path)}
    return [
        _joined(file, places, folder) if file.format == RESPONSES else file
        for file in files
        if file.format != REQUESTS
    ]


def _joined(file: RecordFile, places: dict[str, tuple[RecordFile, int]], folder: Path) -> RecordFile:
    target = folder / f"joined-{len(list(folder.iterdir()))}.jsonl"
    missing: list[str] = []
    with target.open("w", encoding="utf-8") as out:
        for _, row in _rows(file.path):
            place = places.get(row["custom_id"])
            if place is None:
                missing.append(row["custom_id"])
                continue
            request = _row_at(*place)
            own = {name: value for name, value in request.items() if name not in _OF_THE_CALL}
            out.write(to_json({**own, **row, "request": {"body": request["body"]}}) + "\n")
    if missing:
        raise DataError(
            f"{file.name}: {len(missing):,} responses have no request in the input files named (the first: "
            f"{missing[0]!r}): name their input file too, or none"
        )
    return replace(file, path=target, origin=target)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(offset, row) of every row with an id; what cannot be read is left to the reader to report."""
    with path.open("rb") as lines:
        at = 0
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict) and isinstance(row.get("custom_id"), str):
                yield at, row
            at += len(line)


def _row_at(file: RecordFile, offset: int) -> dict[str, Any]:
    with file.path.open("rb") as lines:
        lines.seek(offset)
        row: dict[str, Any] = json.loads(lines.readline())
    return row
