"""Run rewards so that none can hang, crash or corrupt the others. Start with `Execution`."""

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
