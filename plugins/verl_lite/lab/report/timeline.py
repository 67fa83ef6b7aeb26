"""Which worker was busy when, and what it waited for, from a run's timeline.jsonl.

Between the first and the last time in the file, a worker waits while it is in no stage or in one named
wait_*. It waits for the stages that other workers run meanwhile, which share each second equally.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

MAX_STAGES = 20_000  # the last ones are read
DRAWN_STEPS = 8  # the last ones are drawn
MAX_DRAWN = 4_000
MAX_LANES = 24  # more workers than this share lanes: "rollouts 12" and "rollouts 13" become "rollouts"
NOTHING = "nothing (start, end, or unrecorded)"

_Seconds = Mapping[str, Mapping[str, float]]  # of every worker by stage


@dataclass(frozen=True, slots=True)
class Stage:
    """One line of the file: `worker` was in `stage` from `start_s` to `end_s` for `step`."""

    stage: str
    worker: str
    start_s: float
    end_s: float
    step: int


def timeline_data(path: Path) -> dict[str, Any] | None:
    """The report's timeline, ready for JSON; None without one. Damaged lines are left out."""
    stages = _merged(_read(path))
    if not stages:
        return None
    first = min(stage.start_s for stage in stages)
    steps = sorted({stage.step for stage in stages})[-DRAWN_STEPS:]
    drawn = [stage for stage in stages if stage.step >= steps[0]][-MAX_DRAWN:]
    return {
        "bars": [
            [stage.worker, stage.stage, stage.start_s - first, stage.end_s - first, stage.step]
            for stage in drawn
        ],
        "workers": _waiting(stages),
    }


def _read(path: Path) -> list[Stage]:
    if not path.is_file():
        return []
    found: list[Stage] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines()[-MAX_STAGES:]:
        try:
            line = json.loads(text)
            times = (float(line["start_s"]), float(line["end_s"]))
            stage = Stage(str(line["stage"]), str(line["worker"]), *times, int(line["step"]))
        except (ValueError, TypeError, KeyError, OverflowError):
            continue
        if math.isfinite(stage.start_s) and math.isfinite(stage.end_s) and stage.end_s >= stage.start_s:
            found.append(stage)
    return found


def _merged(stages: Sequence[Stage]) -> Sequence[Stage]:
    if len({stage.worker for stage in stages}) <= MAX_LANES:
        return stages
    return [replace(stage, worker=re.sub(r"[\s_-]*\d[\d+]*$", "", stage.worker)) for stage in stages]


def _waiting(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """One row per worker: its share of the time by stage, the share it waited, and for what."""
    span_s = max(stage.end_s for stage in stages) - min(stage.start_s for stage in stages)
    worked_s, waited_s = _seconds([stage for stage in stages if not stage.stage.startswith("wait_")], stages)

    def shares(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
        ordered = sorted(seconds.items(), key=lambda item: -item[1])
        return [(name, value / span_s if span_s else 0.0) for name, value in ordered]

    return [
        {
            "worker": worker,
            "stages": shares(worked_s[worker]),
            "waited": sum(waited_s[worker].values()) / span_s if span_s else 0.0,
            "for": shares(waited_s[worker]),
        }
        for worker in worked_s
    ]


def _seconds(working: Sequence[Stage], all_stages: Sequence[Stage]) -> tuple[_Seconds, _Seconds]:
    """Each worker's seconds by its own stage, and its seconds of waiting by the other workers' stage."""
    workers = dict.fromkeys(stage.worker for stage in all_stages)
    worked_s, waited_s = ({worker: defaultdict[str, float](float) for worker in workers} for _ in range(2))
    running = Counter[tuple[str, str]]()
    edges = [(stage.start_s, 1, stage) for stage in working] + [(stage.end_s, -1, stage) for stage in working]
    edges += [(max(stage.end_s for stage in all_stages), 0, all_stages[0])]
    before = min(stage.start_s for stage in all_stages)
    for at, change, stage in sorted(edges, key=lambda edge: edge[0]):
        if at > before:
            active = {name for _, name in running} or {NOTHING}
            for worker, name in running:
                worked_s[worker][name] += at - before
            for worker, name in product(workers.keys() - {worker for worker, _ in running}, active):
                waited_s[worker][name] += (at - before) / len(active)
        before = at
        running[stage.worker, stage.stage] += change
        running = +running
    return worked_s, waited_s
