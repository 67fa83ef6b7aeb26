"""Seconds per stage of a step, and timeline.jsonl: who worked when, and who waited.

One line per stage:  {"stage": "update", "worker": "learner", "start_s": ..., "end_s": ..., "step": 3}
Times are Unix seconds, comparable between hosts; `step` counts from 1, as in the metrics. A sync run in one
process writes no timeline: its stages run in sequence.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from verl_lite.engine.observe.metrics_log import cut_back
from verl_lite.engine.rundir.checkpoint_files import clear_write_errors


class Timeline:
    """Appends stages to a file, from any thread. `resume_at`: finished steps of a resumed run."""

    def __init__(self, path: Path, *, resume_at: int | None = None) -> None:
        if resume_at is not None:
            cut_back(path, resume_at)
        self._path = path
        self._lock = threading.Lock()
        with clear_write_errors(str(path)):
            self._file = path.open("ab" if resume_at is not None else "wb", buffering=0)

    def add(self, stage: str, *, worker: str, start_s: float, end_s: float, step: int) -> None:
        """Append one stage. Ignored after `close`, as a worker may end late."""
        line = {"stage": stage, "worker": worker, "start_s": start_s, "end_s": end_s, "step": step}
        with self._lock, clear_write_errors(str(self._path)):
            if not self._file.closed:
                self._file.write((json.dumps(line) + "\n").encode())

    def close(self) -> None:
        with self._lock:
            self._file.close()


class StageClock:
    """Seconds per stage of one step; stages also go to the timeline, if any.

    >>> clock = StageClock()
    >>> with clock.stage("update"):
    ...     pass
    >>> list(clock.seconds)
    ['update']
    """

    def __init__(self, timeline: Timeline | None = None, *, step: int = 0, worker: str = "learner") -> None:
        self._timeline = timeline
        self._step = step
        self._worker = worker
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began, started = time.time(), time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + took
            if self._timeline is not None:
                self._timeline.add(
                    name, worker=self._worker, start_s=began, end_s=began + took, step=self._step
                )
