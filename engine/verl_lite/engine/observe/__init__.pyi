from .display import (
    DisplayMode as DisplayMode,
    StepReport as StepReport,
    SummaryRow as SummaryRow,
    make_display as make_display,
    summary_table as summary_table,
)
from .metrics_log import (
    MetricsLog as MetricsLog,
    check_trackers as check_trackers,
    read_metrics as read_metrics,
)
from .monitors import MONITORS as MONITORS, Monitors as Monitors, Warned as Warned
from .rollback import RollbackRules as RollbackRules, Trigger as Trigger, advice as advice
from .rollout_metrics import (
    duplicate_fraction as duplicate_fraction,
    repetition as repetition,
    why_unjudged as why_unjudged,
)
from .sample_tables import sample_table as sample_table
from .timeline import StageClock as StageClock
