"""Score a subject several times: again, in another order, elsewhere, in batches of one, and watched."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from verl_lite.lab.authoring.purity import Impurities, impurities_of, purity_probe
from verl_lite.lab.authoring.subjects import Subject, odd_rollouts
from verl_lite.plugins import Component, Rollout, Score, ScoreOutcome
from verl_lite.plugins.execution import Execution, TimedScore

MIN_CALLS = 200  # enough for a meaningful p99, unless they take longer than
MAX_TIMING_S = 2.0

_ONES, _PROBE = "ones", "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Scores of the subject's rollouts, always in their order.

    again       by the same process, later
    backwards   in reverse order
    elsewhere   by another process
    in_ones     in batches of one; None for rewards of other forms
    odd         of odd_rollouts
    impurities  found by the probe in purity.py
    call_latencies_s  per call: a batch or group counts once
    """

    first: Sequence[Score]
    again: Sequence[Score]
    backwards: Sequence[Score]
    elsewhere: Sequence[Score]
    in_ones: Sequence[Score] | None
    odd: Sequence[Score]
    impurities: Impurities
    call_latencies_s: Sequence[float]


def run_passes(subject: Subject) -> Passes:
    """Run every pass. Raises PluginError for a reward that a worker process cannot load."""
    component, rollouts = subject.component, list(subject.rollouts)
    latencies: list[float] = []
    with Execution([component], workers=1) as execution:
        first, again = (_score(execution, component, rollouts, latencies) for _ in range(2))
        backwards = _score(execution, component, rollouts[::-1], latencies)[::-1]
        if all(score.outcome is not ScoreOutcome.TIMEOUT for score in first):
            _time_more(execution, component, rollouts, latencies)
        odd = _score(execution, component, odd_rollouts(subject), [])
    others = [*_variants(subject)]
    with Execution([component, *others], workers=1) as execution:
        run = execution.start()
        run.add(rollouts)
        rows = run.finish()
    by_name = {part.name: [row[part.name].score for row in rows] for part in [component, *others]}
    return Passes(
        first=first,
        again=again,
        backwards=backwards,
        elsewhere=by_name[component.name],
        in_ones=by_name.get(_ONES),
        odd=odd,
        impurities=impurities_of(by_name[_PROBE])
        if _PROBE in by_name
        else Impurities(not_watched=subject.stays_because),
        call_latencies_s=latencies,
    )


def _variants(subject: Subject) -> Iterator[Component]:
    component = subject.component
    if component.definition.form == "batch":
        yield replace(component, name=_ONES, definition=replace(component.definition, max_batch=1))
    if not subject.stays_because:
        yield purity_probe(component, name=_PROBE)


def _time_more(
    execution: Execution, component: Component, rollouts: Sequence[Rollout], latencies: list[float]
) -> None:
    started = time.perf_counter()
    while len(latencies) < MIN_CALLS and time.perf_counter() - started < MAX_TIMING_S:
        _score(execution, component, rollouts, latencies)


def _score(
    execution: Execution, component: Component, rollouts: Sequence[Rollout], latencies: list[float]
) -> list[Score]:
    run = execution.start()
    run.add(rollouts)
    timed = [row[component.name] for row in run.finish()]
    latencies += _call_latencies(component, rollouts, timed)
    return [row.score for row in timed]


def _call_latencies(
    component: Component, rollouts: Sequence[Rollout], timed: Sequence[TimedScore]
) -> list[float]:
    """The rows of a call share its time equally, so their sum is the call's time."""
    definition = component.definition
    calls: dict[object, float] = {}
    for position, (rollout, row) in enumerate(zip(rollouts, timed, strict=True)):
        if definition.form == "group":
            key: object = rollout.group
        else:
            key = position // definition.max_batch if definition.form == "batch" else position
        calls[key] = calls.get(key, 0.0) + row.latency_s
    return list(calls.values())
