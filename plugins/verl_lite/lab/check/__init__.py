"""Can the reward be trusted? Determinism, dead components, group effects, agreement with labels, probes."""

from verl_lite.lab.check.all_checks import CheckOptions, check_file
from verl_lite.lab.check.components import ComponentTally, component_findings
from verl_lite.lab.check.findings import CheckReport, Finding, Level
from verl_lite.lab.check.group_effects import GroupTally, group_findings
from verl_lite.lab.check.labels import LabelTally, label_findings, read_label

__all__ = [
    "CheckOptions",
    "CheckReport",
    "ComponentTally",
    "Finding",
    "GroupTally",
    "LabelTally",
    "Level",
    "check_file",
    "component_findings",
    "group_findings",
    "label_findings",
    "read_label",
]
