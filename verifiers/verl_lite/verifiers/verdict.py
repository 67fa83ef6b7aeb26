"""What a verifier answers: a verdict with its reasons, never a bare float."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """Wrong, unparsed, a bad reference, a time-out and a crash are five different things."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"  # the response holds no answer that can be read
    BAD_REFERENCE = "bad_reference"  # the data set's own answer or tests cannot be used
    TIMEOUT = "timeout"  # not decided before the deadline
    ERROR = "error"  # a fault of ours, never of the response


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of one verification.

    `extracted` is the answer or program found in the response, `matched_by` the tier that decided
    ("string", "number", "symbolic", ...; empty when none did), `credit` the part of full marks
    earned in [0, 1] (1.0 for correct; between for partly passed tests), `wall_s` the seconds spent.
    """

    outcome: Outcome
    extracted: str | None = None
    matched_by: str = ""
    reason: str = ""
    credit: float = 0.0
    wall_s: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_correct(self) -> bool:
        return self.outcome is Outcome.CORRECT
