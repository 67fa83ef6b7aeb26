"""Is the reward what it says? Determinism, dead parts, group effects, agreement with labels, preflight."""

from verl_lite.lab.check.findings import CheckReport, Finding, Level
from verl_lite.lab.check.run import CheckOptions, check_file

__all__ = ["CheckOptions", "CheckReport", "Finding", "Level", "check_file"]
