"""One self-contained HTML file from rollouts or a run: curves, distributions, a rollout browser."""

from verl_lite.lab.report.page import write_report
from verl_lite.lab.report.report_data import ReportOptions, collect
from verl_lite.lab.report.tallies import Correlations, Histogram
from verl_lite.lab.report.timeline import NOTHING, timeline_data

__all__ = [
    "NOTHING",
    "Correlations",
    "Histogram",
    "ReportOptions",
    "collect",
    "timeline_data",
    "write_report",
]
