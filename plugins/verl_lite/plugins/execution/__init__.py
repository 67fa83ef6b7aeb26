"""Run rewards so that none can hang, crash or corrupt the others. Start with `Execution`.

Each component runs where it belongs: in worker processes (pool, worker), on an event loop, in a
thread or inline. `ExecutionRun` batches rollouts into calls and collects the scores in order.
"""

from verl_lite.plugins.execution.execution import Execution
from verl_lite.plugins.execution.execution_run import ExecutionRun, Placement
from verl_lite.plugins.execution.limits import WorkerLimits
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.execution.stats import ComponentStats, ExecutionStats
from verl_lite.plugins.score import SlowRow

__all__ = [
    "ComponentStats",
    "Execution",
    "ExecutionRun",
    "ExecutionStats",
    "Placement",
    "SlowRow",
    "TimedScore",
    "WorkerLimits",
]
