"""A finding: its level, a sentence a person can act on, and the numbers behind it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from verl_lite.lab.html import html_table


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"  # worth knowing, often intended
    WARN = "warn"  # training will probably suffer
    FAIL = "fail"  # the reward is not what it says: the gate fails


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    message: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    num_rows: int
    num_groups: int
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        return any(finding.level is Level.FAIL for finding in self.findings)

    def _repr_html_(self) -> str:
        rows = [[finding.level, finding.check, finding.message] for finding in self.findings]
        return html_table(["", "failed" if self.failed else "passed", ""], rows)

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "failed": self.failed}
