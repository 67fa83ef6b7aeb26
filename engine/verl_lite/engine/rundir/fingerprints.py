"""What a resumed run must share with its beginning: fingerprints of its rows, and the date in them."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from verl_lite.engine.types import PromptRow


def data_digest(rows: Iterable[Any]) -> str:
    """SHA-256 of rows of plain data, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def fingerprint_rows(rows: Iterable[PromptRow]) -> dict[str, Any]:
    """Number and SHA-256 of the rows as training sees them: tokens, reference and columns, in order."""
    digest, count = hashlib.sha256(), 0
    for row in rows:
        content = [row.id, list(row.prompt_ids), row.reference, dict(row.columns)]
        digest.update(json.dumps(content, sort_keys=True, default=str).encode())
        count += 1
    return {"rows": count, "sha256": digest.hexdigest()}


def date_of(environment_file: Path) -> date:
    """The date that the run's chat template writes: that of environment.json; today for a new run."""
    try:
        return date.fromisoformat(json.loads(environment_file.read_text(encoding="utf-8"))["date"])
    except (OSError, ValueError, KeyError):
        return date.today()


def changed_data(environment_file: Path, data: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the data sets whose rows differ from environment.json."""
    try:
        began = json.loads(environment_file.read_text(encoding="utf-8")).get("data", {})
    except (OSError, ValueError):
        return []  # without a readable environment.json there is nothing to compare with
    return [name for name, now in data.items() if name in began and began[name] != dict(now)]
