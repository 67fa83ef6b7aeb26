"""Where metrics go: always metrics.jsonl, and the trackers named in the config."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_lite.errors import ConfigError

__all__ = ["MetricsLog", "check_trackers", "read_metrics"]


def check_trackers(names: Sequence[str]) -> None:
    """Raises ConfigError for a tracker accelerate does not know or whose package is not installed."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(LOGGER_TYPE_TO_CLASS)
    installed = {str(kind.value) for kind in get_available_trackers()}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"logging.trackers: unknown tracker {name!r}; expected one of {', '.join(known)}"
            )
        if name not in installed:
            raise ConfigError(f"logging.trackers: {name!r} is not installed: pip install {name}")


class MetricsLog:
    """Appends one JSON object a step and passes the same numbers to the trackers."""

    def __init__(
        self,
        run_dir: Path,
        *,
        run_name: str,
        trackers: Sequence[str],
        config: Mapping[str, Any],
        resume_at: int | None = None,
        file_name: str = "metrics.jsonl",
    ) -> None:
        """`resume_at` counts the finished steps of a resumed run: lines of later ones are taken out."""
        path = run_dir / file_name
        kept = read_metrics(path) if resume_at is not None and path.exists() else []
        self._file = path.open("w", encoding="utf-8")
        for row in kept:
            if resume_at is not None and row["step"] <= resume_at:
                self._write(row)
        self._trackers = [_start_tracker(name, run_name, run_dir, config) for name in trackers]

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        self._write({"step": step, **metrics})
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        for tracker in self._trackers:
            tracker.log(finite, step=step)

    def _write(self, row: Mapping[str, Any]) -> None:
        # nan and inf are no JSON: null says "no value" to every reader
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self._file.write(json.dumps(clean) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        for tracker in self._trackers:
            tracker.finish()


def _start_tracker(name: str, run_name: str, run_dir: Path, config: Mapping[str, Any]) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    # a tracker that writes into a folder gets runs/<run>/<its name>/
    tracker = kind(name, logging_dir=str(run_dir)) if kind.requires_logging_directory else kind(run_name)
    tracker.start()
    tracker.store_init_configuration(_flat(config))
    return tracker


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The tree as {"a.b": scalar}; lists as text: all that every tracker can hold."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line cut off by a crash is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
