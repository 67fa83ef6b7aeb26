"""Read the folders of runs (missing files count as empty) and of `verl-lite eval --out`."""

import json
from pathlib import Path
from typing import Any

from verl_lite.errors import DataError
from verl_lite.lab.reading.run_folders import RESULTS
from verl_lite.lab.report.timeline import timeline_data


def run_data(folder: Path) -> dict[str, Any]:
    return {
        "name": folder.name,
        "series": _series(folder / "metrics.jsonl"),
        "warm_up": _series(folder / "sft.jsonl"),
        "calibration": json.loads(_text(folder / "calibration.json") or "[]"),
        "events": _json_lines(folder / "events.jsonl"),
        "timeline": timeline_data(folder / "timeline.jsonl"),
        "config": _text(folder / "config.yaml"),
        "environment": _text(folder / "environment.json"),
        "summary": json.loads(_text(folder / "summary.json") or "null"),
    }


def evaluation_data(folder: Path) -> dict[str, Any]:
    """{name, model, datasets: {data set: [measure]}} of one evaluation. Raises DataError for other files."""
    path = folder / RESULTS
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        datasets = {name: list(part["measures"]) for name, part in data["datasets"].items()}
        return {"name": folder.name, "model": str(data["model"]), "datasets": datasets}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no results of an evaluation: {error!r}") from None


def _series(path: Path) -> dict[str, list[Any]]:
    """Every numeric metric as a list over `step`, null where a step lacks it.

    Several lines of one step (training and evaluation) are merged. An incomplete last line is left out.
    """
    by_step: dict[int, dict[str, Any]] = {}
    for line in _json_lines(path):
        by_step.setdefault(line["step"], {}).update(line)
    lines = list(by_step.values())
    names = sorted({name for line in lines for name, value in line.items() if _is_number(value)} - {"step"})
    return {
        "step": [line["step"] for line in lines],
        **{name: [line[name] if _is_number(line.get(name)) else None for line in lines] for name in names},
    }


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """The file's objects that have a step; an incomplete line is skipped."""
    found = []
    for text in _text(path).splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            found.append(line)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
