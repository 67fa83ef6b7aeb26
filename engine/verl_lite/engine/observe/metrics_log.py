"""Metrics: always metrics.jsonl, and the trackers named in the config."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verl_lite.engine.observe.sample_tables import SampleTable, send_table
from verl_lite.engine.rundir.checkpoint_files import clear_write_errors
from verl_lite.engine.rundir.diff import flat
from verl_lite.errors import ConfigError


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError for a tracker that accelerate does not know or that is not installed."""
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
    """Appends one JSON object per step and sends the same numbers to the trackers."""

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
        """`resume_at`: finished steps of a resumed run; lines of later steps are removed."""
        self._path = run_dir / file_name
        self._latest: tuple[int, dict[str, float]] = (0, {})
        if resume_at is not None:
            cut_back(self._path, resume_at)
        if trackers:
            from accelerate import PartialState

            PartialState()  # required by accelerate's loggers
        with clear_write_errors(str(self._path)):
            self._file = self._path.open("ab" if resume_at is not None else "wb", buffering=0)
            self._trackers = {
                name: _start_tracker(name, run_name, run_dir, config, resume_at) for name in trackers
            }

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        with clear_write_errors(f"metrics to {self._path}"):
            self._file.write(_line({"step": step, **metrics}))
            self._latest = (step, {**self.of_step(step), **metrics})
            finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
            for tracker in self._trackers.values():
                tracker.log(finite, step=step)

    def of_step(self, step: int) -> Mapping[str, float]:
        """The metrics of `step` if it is the newest; else {}."""
        latest, metrics = self._latest
        return metrics if latest == step else {}

    def log_samples(self, table: SampleTable, *, step: int) -> None:
        """Send a few rollouts of the step to the trackers."""
        with clear_write_errors("the trackers' files"):
            for name, tracker in self._trackers.items():
                send_table(name, tracker, table, step=step)

    def set_aside(self, step: int, *, into: Path) -> None:
        """Move the lines of later steps to the file `into`."""
        self._file.close()
        with clear_write_errors(str(into)):
            into.parent.mkdir(parents=True, exist_ok=True)
            into.write_bytes(b"".join(_line(row) for row in read_metrics(self._path) if row["step"] > step))
            cut_back(self._path, step)
            self._file = self._path.open("ab", buffering=0)

    def sync(self) -> None:
        """Flush every line to the disk: a checkpoint must never be newer than its metrics."""
        with clear_write_errors(f"metrics to {self._path}"):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        with clear_write_errors("the trackers' files"):
            for tracker in self._trackers.values():
                tracker.finish()


def _line(row: Mapping[str, Any]) -> bytes:
    # JSON has no nan and inf: null means "no value" to every reader
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return (json.dumps(clean) + "\n").encode()


def cut_back(path: Path, step: int) -> None:
    """Remove the lines of later steps."""
    if not path.exists():
        return
    lines = b"".join(_line(row) for row in read_metrics(path) if row["step"] <= step)
    with clear_write_errors(str(path)):
        aside = path.with_name(f".{path.name}.part")
        aside.write_bytes(lines)
        os.replace(aside, path)


def _start_tracker(
    name: str, run_name: str, run_dir: Path, config: Mapping[str, Any], resume_at: int | None
) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    options: dict[str, Any] = {}
    if kind.requires_logging_directory:  # it writes to runs/<run>/<tracker>/
        options["logging_dir"] = str(run_dir)
    if name == "tensorboard" and resume_at is not None:
        options["purge_step"] = resume_at + 1  # hides the points of removed steps
    if name == "wandb":
        options["dir"] = str(run_dir)
    if name == "trackio":  # it reads its database's path on import
        os.environ.setdefault("TRACKIO_DIR", str(run_dir.resolve() / "trackio"))
        options["embed"] = False
    if name == "mlflow":  # default: a store in the run's folder
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{run_dir.resolve() / 'mlflow.db'}")
        options["logging_dir"] = (run_dir.resolve() / "mlruns").as_uri()
    tracker = kind(name if "logging_dir" in options and name != "mlflow" else run_name, **options)
    tracker.start()
    plain = (bool, int, float, str)
    settings = {key: value if isinstance(value, plain) else str(value) for key, value in flat(config)}
    tracker.store_init_configuration(settings)  # {"a.b": scalar}, lists as text, for every tracker
    return tracker


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, without a last line that a crash cut off."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
