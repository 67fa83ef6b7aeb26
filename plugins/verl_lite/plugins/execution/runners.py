"""Decide where each component runs, and make its runner."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from verl_lite.plugins.contract import Component, RewardDefinition
from verl_lite.plugins.execution.event_loop import DebugAsyncRunner, EventLoopRunner
from verl_lite.plugins.execution.execution_run import Runner
from verl_lite.plugins.execution.inline import InlineRunner
from verl_lite.plugins.execution.limits import WorkerLimits
from verl_lite.plugins.execution.pool import ProcessPool
from verl_lite.plugins.execution.spawn_pool import SpawnPool
from verl_lite.plugins.execution.threads import ThreadRunner
from verl_lite.workers import can_fork_workers

Place = Literal["process", "event loop", "thread", "inline"]


def place_of(definition: RewardDefinition) -> Place:
    if definition.is_async:
        return "event loop"
    if definition.isolate:
        return "process"
    return "thread" if definition.form == "batch" else "inline"


def make_runners(
    components: Mapping[int, Component], *, workers: int, limits: WorkerLimits, replaced: Counter[str]
) -> dict[int, Runner | InlineRunner]:
    """A runner per component (by index in the execution); components in worker processes share a pool."""
    places = {index: place_of(component.definition) for index, component in components.items()}

    def at(place: Place) -> dict[int, Component]:
        return {index: components[index] for index in places if places[index] == place}

    runners: dict[int, Runner | InlineRunner] = {}
    if isolated := at("process"):
        pool = ProcessPool if can_fork_workers() else SpawnPool
        runners |= dict.fromkeys(isolated, pool(isolated, workers, limits, replaced))
    if asynchronous := at("event loop"):
        runners |= dict.fromkeys(asynchronous, EventLoopRunner(asynchronous))
    runners |= {index: ThreadRunner(component) for index, component in at("thread").items()}
    runners |= {index: InlineRunner(component) for index, component in at("inline").items()}
    return runners


def make_debug_runners(components: Sequence[Component]) -> list[Runner | InlineRunner]:
    """Runners that do everything in the calling process and thread."""
    return [
        DebugAsyncRunner(component) if component.definition.is_async else InlineRunner(component)
        for component in components
    ]
