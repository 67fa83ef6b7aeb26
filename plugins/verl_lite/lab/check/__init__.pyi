from .all_checks import CheckOptions as CheckOptions, check_file as check_file
from .components import ComponentTally as ComponentTally, component_findings as component_findings
from .findings import CheckReport as CheckReport, Finding as Finding, Level as Level
from .group_effects import GroupTally as GroupTally, group_findings as group_findings
from .labels import LabelTally as LabelTally, label_findings as label_findings, read_label as read_label
