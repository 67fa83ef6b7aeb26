"""Why a component gave no value: the commonest reasons, each with one row and the plugin's own line.

An exception's text often names the row ("could not convert 'x'"), so what was raised by one exception
type at one line is one reason; other reasons are counted by their text.
"""

import re
from dataclasses import asdict, dataclass, field, replace

from verl_lite.plugins import Score
from verl_lite.plugins.composite.policies import was_run

MAX_KINDS = 200  # different reasons kept per component; rows of further ones are counted as "other reasons"
NUM_SHOWN = 3
_OTHER = "other reasons"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Rows without a value for one reason; `reason`, `id` and `where` ("file:line" or "") are the first's."""

    outcome: str
    reason: str
    id: str
    where: str = ""
    count: int = 1

    @property
    def sentence(self) -> str:
        """One line for people: how many, why, one row, where in the plugin.

        >>> Reason(outcome="error", reason="KeyError: 'a'", id="r1", where="/x/mine.py:3", count=2).sentence
        "2 error: KeyError: 'a'; first row r1; /x/mine.py:3"
        """
        where = f"; {self.where}" if self.where else ""
        # the reason ends with the file's name and line, which `where` gives in full
        text = re.sub(r" \([^()]*:\d+\)$", "", self.reason) if where else self.reason
        return f"{self.count:,} {self.outcome}: {text or 'no reason given'}; first row {self.id}{where}"


@dataclass(slots=True)
class ReasonTally:
    """Counts the reasons of one component's rows without a value; rows that it did not run on are none."""

    kinds: dict[str, Reason] = field(default_factory=dict)

    def add(self, score: Score, row_id: str) -> None:
        """Count a score without a value."""
        if not was_run(score):
            return
        where = str(score.details.get("where") or "")
        kind = f"{score.reason.partition(':')[0]} {where}" if where else score.reason
        found = Reason(outcome=score.outcome.value, reason=score.reason, id=row_id, where=where)
        self._count(f"{score.outcome} {kind}", found)

    def merge(self, other: "ReasonTally") -> None:
        for kind, reason in other.kinds.items():
            self._count(kind, reason)

    def commonest(self, *, source: str = "") -> list[Reason]:
        """The commonest reasons first; `source`, where the reward is defined, stands in for unknown lines."""
        found = sorted(self.kinds.values(), key=lambda reason: -reason.count)[:NUM_SHOWN]
        return [_with_source(reason, source) for reason in found]

    def to_json(self, *, source: str = "") -> list[dict[str, object]]:
        return [asdict(reason) for reason in self.commonest(source=source)]

    def _count(self, kind: str, reason: Reason) -> None:
        if kind not in self.kinds and len(self.kinds) >= MAX_KINDS:
            kind, reason = f"{reason.outcome} {_OTHER}", replace(reason, reason=_OTHER, where="")
        before = self.kinds.get(kind)
        self.kinds[kind] = reason if before is None else replace(before, count=before.count + reason.count)


def _with_source(reason: Reason, source: str) -> Reason:
    return reason if reason.where or reason.outcome == "abstain" else replace(reason, where=source)
