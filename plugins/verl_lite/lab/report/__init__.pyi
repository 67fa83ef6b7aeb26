from .page import write_report as write_report
from .report_data import (
    ReportData as ReportData,
    ReportOptions as ReportOptions,
    collect as collect,
    shown_rollouts as shown_rollouts,
)
from .timeline import NOTHING as NOTHING, timeline_data as timeline_data
