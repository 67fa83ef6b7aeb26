"""Run the components of a composite concurrently, each where it belongs."""

from collections import Counter
from collections.abc import Sequence

from verl_lite.errors import ConfigError, RewardError
from verl_lite.plugins.contract import Component
from verl_lite.plugins.execution.component_graph import make_graph
from verl_lite.plugins.execution.execution_run import ExecutionRun, Placement, Runner
from verl_lite.plugins.execution.inline import InlineRunner
from verl_lite.plugins.execution.limits import WorkerLimits
from verl_lite.plugins.execution.stats import ExecutionStats, StatsCollector
from verl_lite.workers import num_cores


class Execution:
    """A context manager that holds worker processes and threads for `components` while it is open.

    isolate=True    worker processes, killed at the deadline of a call (`workers`: by default one per core)
    async           an event loop in a thread, calls cancelled at the deadline
    isolate=False   the calling thread; form "batch" (models): a thread per component
    placement       runs some components elsewhere, on workers of a cluster; the others run as above
    `debug_inline` runs everything in the calling process and thread, without deadlines, so that
    breakpoints hit. `with Execution(...)` raises ConfigError for needs that cannot be met and
    PluginError for a reward that a worker process cannot load.

    >>> with Execution(components) as execution:     # doctest: +SKIP
    ...     run = execution.start()
    ...     run.add(rollouts)                        # work begins here
    ...     rows = run.finish()                      # per rollout: component name -> TimedScore
    """

    def __init__(
        self,
        components: Sequence[Component],
        *,
        workers: int | None = None,
        debug_inline: bool = False,
        limits: WorkerLimits | None = None,
        placement: Placement | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"workers={workers}: expected at least 1, or None for one per core")
        self._graph = make_graph(components)
        self._workers = workers or num_cores()
        self._limits = limits or WorkerLimits()
        self._debug_inline = debug_inline
        self._placement = placement
        self._replaced: Counter[str] = Counter()
        self._names = [component.name for component in components]
        self._collector = StatsCollector(self._names, self._replaced)
        self._runners: list[Runner | InlineRunner] = []
        self._background: list[Runner] = []

    def __enter__(self) -> "Execution":
        try:
            self._runners = self._make_runners()
            unique = dict.fromkeys(self._runners)  # components may share one
            self._background = [runner for runner in unique if not isinstance(runner, InlineRunner)]
            for runner in self._background:
                runner.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> ExecutionRun:
        """A new run; several may be open at the same time, sharing the workers."""
        if not self._runners and self._graph.components:
            raise RewardError("the execution is not open: use `with Execution(...) as execution`")
        own = StatsCollector(self._names, self._replaced)
        return ExecutionRun(self._graph, self._runners, own, self._collector)

    def stats(self) -> ExecutionStats:
        return self._collector.stats()

    def close(self) -> None:
        """End all workers and threads, with everything that rewards started."""
        background, self._background, self._runners = self._background, [], []
        for runner in background:
            runner.close()

    def _make_runners(self) -> list[Runner | InlineRunner]:
        # Imported here: asyncio, sockets and processes are not needed to write or describe a reward.
        from verl_lite.plugins.execution.runners import make_debug_runners, make_runners

        if self._debug_inline:
            return make_debug_runners(self._graph.components)
        components = dict(enumerate(self._graph.components))
        runners: dict[int, Runner | InlineRunner] = {}
        if self._placement is not None:
            runners |= self._placement.take(components, self._replaced)
        runners |= make_runners(
            {index: component for index, component in components.items() if index not in runners},
            workers=self._workers,
            limits=self._limits,
            replaced=self._replaced,
        )
        return [runners[index] for index in components]
