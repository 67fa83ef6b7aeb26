"""One self-contained HTML file from rollouts or a run: curves, distributions, a rollout browser."""

from verl_lite.lab.report.collect import ReportOptions, collect
from verl_lite.lab.report.page import write_report

__all__ = ["ReportOptions", "collect", "write_report"]
